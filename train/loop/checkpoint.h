// Checkpoints of a run: out_dir/step-N is an ordinary Hugging Face folder (config.json, model.safetensors
// with f32 weights, the tokenizer's files) with optimizer.safetensors and trainer.json beside them.
//
// A folder is written under another name and renamed when it is complete and synced: step-N is whole or not
// there, whenever the run is killed. What an interruption leaves behind is removed by the next run.
#pragma once
#include <optional>

#include "train/loop/config.h"
#include "train/loop/optimizer.h"

namespace nvl {

struct TrainerState {
    int64_t step = 0;           // steps done
    int64_t rows = 0;           // rows consumed: the whole state of the data
    std::string tokenizer;      // sha256
    int64_t rows_per_epoch = 0; // of the data this run trains on
    double seconds = 0;         // of training so far
    Json config;
    Json metrics; // of the last step, in case its line of metrics.jsonl was lost
};

std::string checkpoint_folder(const std::string& out_dir, int64_t step);
/// The complete checkpoint with the largest step, or nothing.
std::optional<std::string> newest_checkpoint(const std::string& out_dir);
/// Removes what interrupted writes and removals left in out_dir.
void remove_leftovers(const std::string& out_dir);
/// Writes out_dir/step-N, then removes all but the last `keep` checkpoints.
void write_checkpoint_of(const std::string& out_dir, const TrainerState& state, Model& model,
                         const Optimizer& optimizer, const std::string& tokenizer_folder, int64_t keep);
TrainerState read_trainer_state(const std::string& checkpoint);

} // namespace nvl
