#include "train/loop/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "engine/base/check.h"
#include "engine/io/file.h"
#include "models/checkpoint.h"

namespace nvl {
namespace fs = std::filesystem;

static constexpr const char* TOKENIZER_FILES[] = {"tokenizer.json", "tokenizer_config.json",
                                                  "special_tokens_map.json", "chat_template.jinja"};

std::string checkpoint_folder(const std::string& out_dir, int64_t step) {
    return out_dir + "/step-" + std::to_string(step);
}

// step-N of a complete checkpoint, -1 for anything else.
static int64_t step_of(const fs::path& path) {
    std::string name = path.filename().string();
    if (name.rfind("step-", 0) != 0 || name.size() < 6 || name.size() > 20) return -1;
    if (name.find_first_not_of("0123456789", 5) != name.npos || !exists(path.string() + "/trainer.json"))
        return -1;
    return std::stoll(name.substr(5));
}

static std::vector<int64_t> checkpoint_steps(const std::string& out_dir) {
    std::vector<int64_t> steps;
    if (is_directory(out_dir))
        for (auto& entry : fs::directory_iterator(out_dir))
            if (int64_t step = step_of(entry.path()); step >= 0) steps.push_back(step);
    std::sort(steps.begin(), steps.end());
    return steps;
}

std::optional<std::string> newest_checkpoint(const std::string& out_dir) {
    auto steps = checkpoint_steps(out_dir);
    if (steps.empty()) return std::nullopt;
    return checkpoint_folder(out_dir, steps.back());
}

void remove_leftovers(const std::string& out_dir) {
    if (!is_directory(out_dir)) return;
    std::vector<fs::path> leftovers;
    for (auto& entry : fs::directory_iterator(out_dir)) {
        std::string name = entry.path().filename().string();
        bool moved_aside = name.rfind("step-", 0) == 0 && name.find(".old") != name.npos;
        if (name.rfind(".writing-", 0) == 0 || name.rfind(".removing-", 0) == 0 || moved_aside)
            leftovers.push_back(entry.path());
    }
    for (auto& path : leftovers) fs::remove_all(path);
}

static void remove_old(const std::string& out_dir, int64_t keep) {
    auto steps = checkpoint_steps(out_dir);
    for (size_t i = 0; i + size_t(keep) < steps.size();
         i++) { // out of sight in one call, then piece by piece
        std::string hidden = out_dir + "/.removing-" + std::to_string(steps[i]);
        std::error_code error;
        fs::rename(checkpoint_folder(out_dir, steps[i]), hidden, error);
        if (!error) fs::remove_all(hidden, error);
    }
}

void write_checkpoint_of(const std::string& out_dir, const TrainerState& s, Model& model,
                         const Optimizer& optimizer, const std::string& tokenizer_folder, int64_t keep) {
    std::string temporary = out_dir + "/.writing-" + std::to_string(s.step);
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    try {
        make_directories(temporary);
        save_model(model, temporary, [&](const WeightInfo&, const Tensor& w) { return optimizer.master(w); });
        for (const char* name : TOKENIZER_FILES)
            if (exists(tokenizer_folder + "/" + name))
                write_file(temporary + "/" + name, read_file(tokenizer_folder + "/" + name));
        write_safetensors(temporary + "/optimizer.safetensors", optimizer.state());
        Json j{{"step", s.step},           {"rows", s.rows},       {"rows_per_epoch", s.rows_per_epoch},
               {"tokenizer", s.tokenizer}, {"seconds", s.seconds}, {"metrics", s.metrics},
               {"config", s.config}};
        write_file(temporary + "/trainer.json", j.dump(2) + "\n");
        publish_directory(temporary, checkpoint_folder(out_dir, s.step));
    } catch (...) { // a full disk: give the space back, older checkpoints stay as they are
        fs::remove_all(temporary, ignored);
        throw;
    }
    remove_old(out_dir, keep);
}

TrainerState read_trainer_state(const std::string& checkpoint) {
    std::string path = checkpoint + "/trainer.json";
    check(exists(path), "%s: not found; only checkpoints of a training run can be resumed", path.c_str());
    Json j = Json::parse(read_file(path), nullptr, false);
    TrainerState s;
    try {
        s.step = j.at("step"), s.rows = j.at("rows"), s.rows_per_epoch = j.at("rows_per_epoch");
        s.tokenizer = j.at("tokenizer"), s.seconds = j.at("seconds"), s.config = j.at("config"),
        s.metrics = j.at("metrics");
    } catch (const Json::exception&) {
        fail("%s: not the state of a training run", path.c_str());
    }
    return s;
}

} // namespace nvl
