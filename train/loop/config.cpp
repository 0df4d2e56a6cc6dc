#include "train/loop/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "engine/base/check.h"
#include "engine/base/dtype.h"
#include "engine/base/text.h"
#include "engine/io/file.h"
#include "models/model.h"

namespace nvl {

namespace {

using Target = std::variant<std::string*, int64_t*, double*, bool*, std::vector<std::string>*>;
struct Field {
    const char* name;
    Target target;
    bool may_change = false; // between a checkpoint and the run that continues it
};

constexpr bool FREE = true;

std::vector<Field> fields(TrainConfig& c) {
    auto& o = c.optimizer;
    auto& s = c.schedule;
    return {
        {"init_from", &c.init_from, FREE},
        {"out_dir", &c.out_dir, FREE},
        {"seed", &c.seed},
        {"steps", &c.steps, FREE},
        {"threads", &c.threads, FREE},
        {"resume", &c.resume, FREE},
        {"device", &c.device, FREE},
        {"dtype", &c.dtype},
        {"recompute", &c.recompute, FREE},
        {"tokenizer.path", &c.tokenizer_path, FREE},
        {"tokenizer.vocab", &c.tokenizer_vocab, FREE},
        {"data.path", &c.data_path, FREE},
        {"data.cache", &c.data_cache, FREE},
        {"data.val_fraction", &c.val_fraction},
        {"data.row_length", &c.row_length},
        {"batch.rows", &c.rows},
        {"batch.accumulation", &c.accumulation},
        {"tasks.spelling", &c.spelling},
        {"tasks.letter_count", &c.letter_count},
        {"tasks.arithmetic", &c.arithmetic},
        {"tasks.turns", &c.turns},
        {"tasks.identity", &c.identity},
        {"tasks.identity_path", &c.identity_path, FREE},
        {"tasks.words_path", &c.words_path, FREE},
        {"tasks.model_name", &c.model_name},
        {"optimizer.kind", &o.kind},
        {"optimizer.lr", &o.lr},
        {"optimizer.muon_lr", &o.muon_lr},
        {"optimizer.beta1", &o.beta1},
        {"optimizer.beta2", &o.beta2},
        {"optimizer.eps", &o.eps},
        {"optimizer.momentum", &o.momentum},
        {"optimizer.weight_decay", &o.weight_decay},
        {"optimizer.clip", &o.clip},
        {"schedule.kind", &s.kind},
        {"schedule.warmup", &s.warmup},
        {"schedule.final", &s.final_fraction},
        {"schedule.decay", &s.decay},
        {"eval.every", &c.eval_every, FREE},
        {"eval.rows", &c.eval_rows, FREE},
        {"sample.every", &c.sample_every, FREE},
        {"sample.tokens", &c.sample_tokens, FREE},
        {"sample.prompts", &c.prompts, FREE},
        {"save.every", &c.save_every, FREE},
        {"save.keep_last", &c.keep_last, FREE},
        {"log.every", &c.log_every, FREE},
    };
}

const char* const MESH[] = {"mesh.dp", "mesh.tp", "mesh.pp", "mesh.cp", "mesh.ep"};

template <class X> bool parse_number(const std::string& text, X& value) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
}

void set(const Field& f, const std::string& text) {
    auto wrong = [&](const char* expected) {
        fail("%s: expected %s, found \"%s\"", f.name, expected, text.c_str());
    };
    if (auto* s = std::get_if<std::string*>(&f.target)) **s = text;
    if (auto* i = std::get_if<int64_t*>(&f.target))
        if (!parse_number(text, **i)) wrong("a whole number");
    if (auto* d = std::get_if<double*>(&f.target))
        if (!parse_number(text, **d)) wrong("a number");
    if (auto* b = std::get_if<bool*>(&f.target)) {
        if (text != "true" && text != "false") wrong("true or false");
        **b = text == "true";
    }
    if (auto* l = std::get_if<std::vector<std::string>*>(&f.target)) {
        (*l)->clear();
        for (auto& part : split(text, ','))
            if (!part.empty()) (*l)->push_back(part);
    }
}

Json to_json(const YAML::Node& n) { // YAML scalars have no type: what reads as JSON is that, else a string
    if (n.IsMap()) {
        Json j = Json::object();
        for (auto& kv : n) j[kv.first.as<std::string>()] = to_json(kv.second);
        return j;
    }
    if (n.IsSequence()) {
        Json j = Json::array();
        for (auto& v : n) j.push_back(to_json(v));
        return j;
    }
    if (!n.IsScalar()) return nullptr;
    auto text = n.as<std::string>();
    if (n.Tag() == "!") return text; // quoted
    double number = 0;
    if (Json j = Json::parse(text, nullptr, false); !j.is_discarded() && !j.is_structured()) return j;
    if (parse_number(text, number)) return number; // 1e-5, .5: numbers in YAML, not in JSON
    return text;
}

class Reader {
public:
    explicit Reader(TrainConfig& c) : config_(c), fields_(fields(c)) {}

    void assign(const std::string& key, const std::string& value, const std::string& where) {
        if (key == "model") {
            config_.model = value;
            return;
        }
        if (key.rfind("model.", 0) == 0) {
            check(!config_.model.is_string(), "%s: %s overrides a block, but model is the path %s",
                  where.c_str(), key.c_str(), config_.model.get<std::string>().c_str());
            config_.model[key.substr(6)] = to_json(YAML::Load(value));
            return;
        }
        for (const char* axis : MESH)
            if (key == axis) {
                check(value == "1", "%s=%s: training on several ranks is not in this build; leave it at 1",
                      axis, value.c_str());
                return;
            }
        for (const Field& f : fields_)
            if (key == f.name) return set(f, value);
        unknown(key, where);
    }

    void walk(const YAML::Node& node, const std::string& prefix, const std::string& where) {
        for (auto& kv : node) {
            std::string key = prefix + kv.first.as<std::string>();
            const YAML::Node& v = kv.second;
            if (key == "model" && v.IsMap())
                config_.model = to_json(v);
            else if (v.IsMap()) {
                if (!is_section(key)) unknown(key, where);
                walk(v, key + ".", where);
            } else if (v.IsSequence())
                assign_list(key, v, where);
            else
                assign(key, v.IsNull() ? "" : v.as<std::string>(), where);
        }
    }

    /// Files that the config names and that are not there: taken from its own folder, if they are in it.
    void look_beside(const std::filesystem::path& folder) {
        auto look = [&](std::string& file) {
            if (!file.empty() && !exists(file) && exists((folder / file).string()))
                file = (folder / file).string();
        };
        for (std::string* file :
             {&config_.init_from, &config_.tokenizer_path, &config_.identity_path, &config_.words_path})
            look(*file);
        for (std::string& file : config_.data_path) look(file);
        if (config_.model.is_string()) {
            auto file = config_.model.get<std::string>();
            look(file);
            config_.model = file;
        }
    }

private:
    bool is_section(const std::string& key) const {
        std::string prefix = key + ".";
        for (const Field& f : fields_)
            if (std::string(f.name).rfind(prefix, 0) == 0) return true;
        return key == "mesh";
    }
    void assign_list(const std::string& key, const YAML::Node& list, const std::string& where) {
        for (const Field& f : fields_) {
            auto* target = std::get_if<std::vector<std::string>*>(&f.target);
            if (key != f.name) continue;
            check(target, "%s: %s: expected one value, found a list", where.c_str(), key.c_str());
            (*target)->clear();
            for (auto& item : list) (*target)->push_back(item.as<std::string>());
            return;
        }
        unknown(key, where);
    }
    [[noreturn]] void unknown(const std::string& key, const std::string& where) const {
        std::vector<std::string> names{"model"};
        for (const Field& f : fields_) names.emplace_back(f.name);
        names.insert(names.end(), std::begin(MESH), std::end(MESH));
        std::string near = nearest(key, names);
        if (near.empty()) // a leaf without its section: lr for optimizer.lr
            for (auto& n : names)
                if (n.size() > key.size() &&
                    n.compare(n.size() - key.size() - 1, std::string::npos, "." + key) == 0)
                    near = n;
        fail("%s: unknown key \"%s\"%s", where.c_str(), key.c_str(),
             near.empty() ? "" : ("; did you mean \"" + near + "\"?").c_str());
    }
    TrainConfig& config_;
    std::vector<Field> fields_;
};

void check_ranges(const TrainConfig& c) {
    auto at_least = [](const char* key, int64_t value, int64_t least) {
        check(value >= least, "%s: expected at least %ld, found %ld", key, least, value);
    };
    at_least("steps", c.steps, 1), at_least("batch.rows", c.rows, 1);
    at_least("batch.accumulation", c.accumulation, 1), at_least("data.row_length", c.row_length, 2);
    at_least("tokenizer.vocab", c.tokenizer_vocab, 1), at_least("save.keep_last", c.keep_last, 1);
    at_least("eval.every", c.eval_every, 0), at_least("eval.rows", c.eval_rows, 1);
    at_least("save.every", c.save_every, 0), at_least("sample.every", c.sample_every, 0);
    at_least("log.every", c.log_every, 1), at_least("threads", c.threads, 0);
    at_least("sample.tokens", c.sample_tokens, 1), at_least("tasks.turns", c.turns, 1);
    check(c.rows_per_step() * c.row_length < (int64_t(1) << 31), "batch.rows * data.row_length is too large");
    check(c.val_fraction >= 0 && c.val_fraction < 1, "data.val_fraction: expected 0 to 1, found %g",
          c.val_fraction);
    check(c.dtype == "f32" || c.dtype == "bf16", "dtype: expected f32 or bf16, found \"%s\"",
          c.dtype.c_str());
    check(c.device == "cpu" || c.device == "cuda", "device: expected cpu or cuda, found \"%s\"",
          c.device.c_str());
    const OptimizerConfig& o = c.optimizer;
    check(o.kind == "adamw" || o.kind == "muon", "optimizer.kind: expected adamw or muon, found \"%s\"",
          o.kind.c_str());
    check(o.lr >= 0 && o.muon_lr >= 0 && o.weight_decay >= 0 && o.clip >= 0 && o.eps > 0,
          "optimizer: lr, muon_lr, weight_decay and clip may not be negative, eps must be positive");
    for (double b : {o.beta1, o.beta2, o.momentum})
        check(b >= 0 && b < 1, "optimizer: betas and momentum are in [0, 1), found %g", b);
    Recompute::parse(c.recompute);
    validate(c.schedule);
    check(!c.out_dir.empty(), "out_dir: expected a folder");
}

} // namespace

TrainConfig read_config(const std::string& path, const std::vector<std::string>& overrides) {
    TrainConfig c;
    Reader reader(c);
    YAML::Node root;
    try {
        root = YAML::Load(read_file(path));
    } catch (const YAML::Exception& e) {
        fail("%s:%d: not valid YAML: %s", path.c_str(), e.mark.line + 1, e.msg.c_str());
    }
    check(root.IsMap(), "%s: expected a mapping of keys to values", path.c_str());
    reader.walk(root, "", path);
    reader.look_beside(std::filesystem::path(path).parent_path());
    for (const std::string& word : overrides) {
        size_t equals = word.find('=');
        check(equals != word.npos && equals > 0, "expected key=value, found \"%s\"", word.c_str());
        reader.assign(word.substr(0, equals), word.substr(equals + 1), "command line");
    }
    c.schedule.steps = c.steps;
    check_ranges(c);
    return c;
}

Json TrainConfig::to_json() const {
    Json j;
    j["model"] = model;
    for (const Field& f : fields(const_cast<TrainConfig&>(*this)))
        std::visit([&](auto* value) { j[f.name] = *value; }, f.target);
    return j;
}

std::string difference_that_matters(const Json& checkpoint, const Json& now) {
    TrainConfig c;
    std::string text;
    if (checkpoint.contains("model") && checkpoint["model"] != now["model"])
        text = "model was " + checkpoint["model"].dump() + " and is now " + now["model"].dump();
    for (const Field& f : fields(c)) {
        if (f.may_change || !checkpoint.contains(f.name) || checkpoint[f.name] == now[f.name]) continue;
        text += format("%s%s was %s and is now %s", text.empty() ? "" : "; ", f.name,
                       checkpoint[f.name].dump().c_str(), now[f.name].dump().c_str());
    }
    return text;
}

} // namespace nvl
