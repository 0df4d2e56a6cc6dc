#include "engine/base/cli.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <variant>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "engine/base/text.h"
#include "engine/device/device.h"

namespace nvl {

struct Args::Option {
    std::string name, help;
    std::variant<std::string, int64_t, double, bool, std::vector<std::string>> value;
    bool given = false;
};

Args::~Args() = default;
Args::Args(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {}
Args::Option& Args::add(const std::string& name, const std::string& help) {
    options_.push_back(std::make_unique<Option>(Option{name, help, {}}));
    return *options_.back();
}
std::string& Args::option(const std::string& name, const char* value, const std::string& help) {
    return add(name, help).value.emplace<std::string>(value);
}
int64_t& Args::option(const std::string& name, int64_t value, const std::string& help) {
    return add(name, help).value.emplace<int64_t>(value);
}
double& Args::option(const std::string& name, double value, const std::string& help) {
    return add(name, help).value.emplace<double>(value);
}
bool& Args::flag(const std::string& name, const std::string& help) {
    return add(name, help).value.emplace<bool>(false);
}
std::vector<std::string>& Args::list(const std::string& name, const std::string& help) {
    return add(name, help).value.emplace<std::vector<std::string>>();
}
std::vector<std::string>& Args::positional(const std::string& name, const std::string& help) {
    positional_ = new Option{name, help, {}};
    options_.emplace_back(positional_);
    return positional_->value.emplace<std::vector<std::string>>();
}
void Args::common(const char* default_dtype) {
    device_ = &option("device", "cpu", "cpu or cuda");
    dtype_ =
        &option("dtype", default_dtype, "f32 or bf16: what activations and compute weights are stored in");
    threads_ = &option("threads", 0, "CPU threads (0: the cores this process may use)");
}
bool Args::given(const std::string& name) const {
    for (auto& o : options_)
        if (o->name == name) return o->given;
    fail("%s: no option --%s is declared", command_.c_str(), name.c_str());
}

template <class N>
static N number(const std::string& command, const std::string& name, const std::string& text) {
    N n{};
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    check(error == std::errc() && end == text.data() + text.size(), "%s: --%s expects %s, found \"%s\"",
          command.c_str(), name.c_str(), std::is_same_v<N, double> ? "a number" : "an integer", text.c_str());
    return n;
}

bool Args::parse(int argc, char** argv, int first) {
    for (int i = first; i < argc; i++) {
        std::string word = argv[i];
        if (word == "--help" || word == "-h") {
            std::fputs(help().c_str(), stdout);
            return false;
        }
        if (word.rfind("--", 0) != 0) {
            check(positional_, "%s: unexpected argument \"%s\"; options start with --, see --help",
                  command_.c_str(), word.c_str());
            std::get<std::vector<std::string>>(positional_->value).push_back(word);
            continue;
        }
        std::string name = word.substr(2), inline_value;
        bool has_inline = false;
        if (size_t eq = name.find('='); eq != name.npos)
            inline_value = name.substr(eq + 1), name.resize(eq), has_inline = true;
        Option* option = nullptr;
        std::vector<std::string> names;
        for (auto& o : options_) {
            if (o.get() == positional_) continue;
            if (o->name == name) option = o.get();
            names.push_back(o->name);
        }
        if (!option) {
            std::string near = nearest(name, names);
            fail("%s: unknown option --%s%s", command_.c_str(), name.c_str(),
                 near.empty() ? "; see --help" : ("; did you mean --" + near + "?").c_str());
        }
        option->given = true;
        auto next = [&]() -> std::string {
            if (has_inline) return inline_value;
            check(i + 1 < argc, "%s: --%s expects a value", command_.c_str(), name.c_str());
            return argv[++i];
        };
        if (auto* s = std::get_if<std::string>(&option->value))
            *s = next();
        else if (auto* n = std::get_if<int64_t>(&option->value))
            *n = number<int64_t>(command_, name, next());
        else if (auto* d = std::get_if<double>(&option->value))
            *d = number<double>(command_, name, next());
        else if (auto* b = std::get_if<bool>(&option->value)) {
            check(!has_inline, "%s: --%s takes no value", command_.c_str(), name.c_str());
            *b = true;
        } else {
            auto& list = std::get<std::vector<std::string>>(option->value);
            list.push_back(next());
            while (!has_inline && i + 1 < argc && std::strncmp(argv[i + 1], "--", 2) != 0)
                list.emplace_back(argv[++i]);
        }
    }
    if (threads_ && *threads_) set_threads(int(*threads_));
    if (device_) {
        device_from(*device_);
        check(*dtype_ == "f32" || *dtype_ == "bf16", "%s: --dtype expects f32 or bf16, found \"%s\"",
              command_.c_str(), dtype_->c_str());
    }
    return true;
}

std::string Args::help() const {
    std::string text =
        command_ + (positional_ ? " " + positional_->name : "") + " [options]\n" + summary_ + "\n";
    if (positional_) text += "\n  " + positional_->name + "\n      " + positional_->help + "\n";
    text += "\noptions:\n";
    for (auto& o : options_) {
        if (o.get() == positional_) continue;
        std::string value;
        if (auto* s = std::get_if<std::string>(&o->value))
            value = s->empty() ? " TEXT" : " TEXT (" + *s + ")";
        else if (auto* n = std::get_if<int64_t>(&o->value))
            value = " N (" + std::to_string(*n) + ")";
        else if (auto* d = std::get_if<double>(&o->value))
            value = format(" X (%g)", *d);
        else if (!std::holds_alternative<bool>(o->value))
            value = " A B ...";
        text += "  --" + o->name + value + "\n      " + o->help + "\n";
    }
    return text;
}

int run_main(const char* name, const std::function<int()>& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        std::fprintf(stderr, "%s: error: out of memory\n", name);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s: error: %s\n", name, e.what());
    }
    return 1;
}

} // namespace nvl
