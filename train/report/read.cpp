#include <array>
#include <cstdio>
#include <fstream>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/io/file.h"
#include "train/report/report.h"

namespace nvl {

namespace {

Json read_json(const std::string& path) {
    if (!exists(path)) return nullptr;
    Json j = Json::parse(read_file(path), nullptr, false);
    check(!j.is_discarded(), "%s: not valid JSON", path.c_str());
    return j;
}
std::vector<Json> read_lines(const std::string& path) {
    std::vector<Json> all;
    if (exists(path))
        for (const std::string& line : split(read_file(path), '\n'))
            if (Json j = Json::parse(line, nullptr, false); j.is_object()) all.push_back(std::move(j));
    return all;
}
std::string first_line(const char* command) {
    std::string text;
    if (std::FILE* p = popen(command, "r")) {
        for (int c; (c = std::fgetc(p)) != EOF && c != '\n';) text += char(c);
        pclose(p);
    }
    return text;
}
std::string processor() {
    std::ifstream f("/proc/cpuinfo");
    for (std::string line; std::getline(f, line);)
        if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
    return "unknown processor";
}
std::string memory() {
    std::ifstream f("/proc/meminfo");
    for (std::string line; std::getline(f, line);)
        if (line.rfind("MemTotal:", 0) == 0) return human(std::stod(line.substr(9)) * 1024, "B");
    return "unknown";
}
std::string git_state() {
    std::string commit = first_line("git rev-parse --short HEAD 2>/dev/null");
    if (commit.empty()) return "not a git checkout";
    std::string branch = first_line("git rev-parse --abbrev-ref HEAD 2>/dev/null");
    bool dirty = !first_line("git status --porcelain --untracked-files=no 2>/dev/null").empty();
    return commit + " on " + branch + (dirty ? ", with local changes" : ", clean");
}

double mean(const std::vector<Json>& metrics, const char* key) { // of the second half: warm and steady
    double sum = 0;
    size_t from = metrics.size() / 2;
    for (size_t i = from; i < metrics.size(); i++) sum += metrics[i].value(key, 0.0);
    return metrics.empty() ? 0 : sum / double(metrics.size() - from);
}

void add_stage(Report& r, const std::string& name, const Json& s, const std::vector<Json>& metrics) {
    Table t{name, {"", ""}, {}};
    auto row = [&](const char* what, const std::string& value) { t.rows.push_back({{what, value}}); };
    const Json& c = s["config"];
    row("parameters", with_commas(s["parameters"].get<int64_t>()));
    row("steps", with_commas(s["steps"].get<int64_t>()) + " of " +
                     with_commas(c["batch.rows"].get<int64_t>() * c["batch.accumulation"].get<int64_t>() *
                                 c["data.row_length"].get<int64_t>()) +
                     " tokens");
    row("tokens", with_commas(s["tokens"].get<int64_t>()));
    row("time", human_time(s["seconds"].get<double>()));
    row("throughput", with_commas(int64_t(mean(metrics, "tokens_per_second"))) + " tokens/s");
    row("share of the multiply-add peak (MFU)", format("%.1f%%", 100 * mean(metrics, "mfu")));
    row("FLOPs per token", with_commas(int64_t(s["flops_per_token"].get<double>())));
    row("training loss", format("%.4f", s["loss"].get<double>()));
    if (s.value("val_bpb", 0.0) > 0) {
        row("validation loss", format("%.4f", s["val_loss"].get<double>()));
        row("validation bits per byte", format("%.4f", s["val_bpb"].get<double>()));
    }
    row("optimiser", c["optimizer.kind"].get<std::string>() + ", " + c["dtype"].get<std::string>() + ", " +
                         c["schedule.kind"].get<std::string>() + " schedule");
    row("memory", human(s["weights_bytes"].get<double>(), "B") + " weights, gradients and moments, " +
                      human(s["activation_bytes"].get<double>(), "B") + " activations");
    r.tables.push_back(std::move(t));
    Curve loss{name + ": loss", "nats per token", {}, {}};
    for (const Json& m : metrics) {
        loss.line.push_back({m.value("step", 0.0), m.value("loss", 0.0)});
        if (m.contains("val_loss")) loss.dots.push_back({m.value("step", 0.0), m.value("val_loss", 0.0)});
    }
    if (loss.line.size() > 1) r.curves.push_back(std::move(loss));
}

void add_tasks(Report& r, const Json& base, const Json& tuned) {
    Table t{"What the tuned model can do", {"task", "tuned", "before tuning", "best constant answer"}, {}};
    for (const Json& s : tuned) {
        auto name = s["task"].get<std::string>();
        double before = 0;
        for (const Json& b : base)
            if (b["task"] == name) before = b["accuracy"];
        double now = s["accuracy"], constant = s["baseline"];
        t.rows.push_back({{name, format("%.1f%%", 100 * now), format("%.1f%%", 100 * before),
                           format("%.1f%%", 100 * constant)}});
        r.bars.push_back({now, before, constant}), r.bar_names.push_back(name);
        for (const Json& x : s["shown"]) r.talks.push_back({name, x["question"], x["answer"], x["right"]});
    }
    r.tables.insert(r.tables.begin(), std::move(t));
}

} // namespace

Report read_report(const std::string& run) {
    Report r;
    Json base = read_json(run + "/base/summary.json"), tuned = read_json(run + "/sft/summary.json");
    check(!base.is_null() || !tuned.is_null(),
          "%s: holds no finished stage (base/summary.json or sft/summary.json)", run.c_str());
    r.title = "nanochat_vl";
    r.subtitle = "a language model made from nothing on " + processor();
    double seconds = 0;
    if (!base.is_null()) {
        auto metrics = read_lines(run + "/base/metrics.jsonl");
        seconds += base["seconds"].get<double>();
        r.headline.push_back({human(base["parameters"].get<double>(), ""), "parameters"});
        r.headline.push_back({human(base["tokens"].get<double>(), ""), "tokens of pretraining"});
        if (base.value("val_bpb", 0.0) > 0)
            r.headline.push_back(
                {format("%.3f", base["val_bpb"].get<double>()), "bits per byte, held-out text"});
        r.headline.push_back({with_commas(int64_t(mean(metrics, "tokens_per_second"))), "tokens per second"});
        add_stage(r, "Pretraining", base, metrics);
        auto samples = read_lines(run + "/base/samples.jsonl");
        if (!samples.empty())
            for (const Json& s : samples.back()["samples"]) r.samples.push_back({s[0], s[1]});
    }
    if (!tuned.is_null()) {
        seconds += tuned["seconds"].get<double>();
        add_stage(r, "Tuning on conversations", tuned, read_lines(run + "/sft/metrics.jsonl"));
    }
    r.headline.push_back({human_time(seconds), "of training"});
    if (Json scores = read_json(run + "/sft_chat.json"); !scores.is_null())
        add_tasks(r, read_json(run + "/base_chat.json"), scores);

    Table machine{"Machine and state", {"", ""}, {}};
    machine.rows.push_back({{"processor", processor()}});
    const Json& any = base.is_null() ? tuned : base;
    machine.rows.push_back({{"threads", std::to_string(any["threads"].get<int>())}});
    machine.rows.push_back({{"multiply-add peak", human(any["peak_flops"].get<double>(), "FLOP/s")}});
    machine.rows.push_back({{"memory", memory()}});
    machine.rows.push_back({{"git", git_state()}});
    machine.rows.push_back({{"date", first_line("date -u '+%Y-%m-%d %H:%M UTC'")}});
    for (const char* name : {"tokenizer", "pretrain", "sft"})
        if (exists(run + "/" + name + ".seconds"))
            machine.rows.push_back({{std::string("stage ") + name,
                                     human_time(std::stod(read_file(run + "/" + name + ".seconds")))}});
    r.tables.push_back(std::move(machine));
    for (const Json* s : {&base, &tuned})
        if (!s->is_null()) {
            Table data{s == &base ? "Text" : "Conversations", {""}, {}};
            for (const std::string& line : split((*s)["data"].get<std::string>(), '\n'))
                if (!line.empty()) data.rows.push_back({{line}});
            r.tables.push_back(std::move(data));
        }
    if (!tuned.is_null()) r.footer = "build/bin/chat --model " + tuned["checkpoint"].get<std::string>();
    return r;
}

} // namespace nvl
