// What a training run is told: a YAML file, then key=value words of the command line.
//
// Keys are dotted paths (`data.path`); in YAML they may be nested. Every key is known by name, type and
// default (fields() below); an unknown one is an error that names the nearest known key. `model` is a block
// like a config.json, or the path of a model's folder.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "train/loop/schedule.h"

namespace nvl {

using Json = nlohmann::ordered_json;

struct OptimizerConfig {
    std::string kind = "adamw"; // or muon: matrices by Muon, embeddings, head and vectors by AdamW
    double lr = 1e-3, muon_lr = 0.02;
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, momentum = 0.95;
    double weight_decay = 0.1; // of everything but vectors
    double clip = 1.0;         // global norm; 0: none
    bool measure_norm = true;  // not a key: benchmarks of peers without clipping leave the norm out
};

struct TrainConfig {
    Json model;            // null, a path, or the content of a config.json
    std::string init_from; // a checkpoint whose weights training starts from
    std::string out_dir = "out", tokenizer_path;
    int64_t tokenizer_vocab = 4096; // of a tokenizer trained here, where tokenizer.path is empty
    int64_t seed = 42, steps = 100, threads = 0;
    bool resume = false;
    std::string device = "cpu", dtype = "f32", recompute = "none";

    std::vector<std::string> data_path;
    std::string data_cache; // empty: out_dir/data
    double val_fraction = 0.02;
    int64_t row_length = 256, rows = 8, accumulation = 1; // rows per micro-batch, micro-batches per step

    // sft: conversations made up beside those of data.path
    int64_t spelling = 0, letter_count = 0, arithmetic = 0, identity = 0;
    int64_t turns = 1; // up to so many conversations are joined into one
    std::string identity_path, words_path, model_name = "nanochat_vl";

    OptimizerConfig optimizer;
    Schedule schedule;

    int64_t eval_every = 0, eval_rows = 64, sample_every = 0, sample_tokens = 48, save_every = 0,
            keep_last = 2, log_every = 1;
    std::vector<std::string> prompts;

    int64_t rows_per_step() const { return rows * accumulation; }
    int64_t tokens_per_step() const { return rows_per_step() * row_length; }
    std::string cache_folder() const { return data_cache.empty() ? out_dir + "/data" : data_cache; }
    /// As one flat JSON object, for checkpoints and reports.
    Json to_json() const;
};

/// Words `key=value` of a command line override the file. Reads, checks ranges, throws one clear line.
TrainConfig read_config(const std::string& path, const std::vector<std::string>& overrides);

/// The keys in which two runs may not differ if one continues the other's checkpoint bitwise; empty if they
/// may. `steps` may: the schedule then aims at the new end.
std::string difference_that_matters(const Json& checkpoint, const Json& now);

} // namespace nvl
