// What a run trains on: documents or conversations, as token ids in packed rows.
//
// Tokenised shards are kept in the cache folder with a note of what they were made from (files, tokenizer,
// split); a later run with the same sources finds them. Without data.path the shards of the cache are used as
// they are.
#pragma once
#include <memory>

#include "data/pack/dataset.h"
#include "data/tokenizer/tokenizer.h"
#include "train/loop/config.h"

namespace nvl {

struct TrainingData {
    std::unique_ptr<Tokenizer> tokenizer;
    std::string tokenizer_folder; // its files, copied beside every checkpoint
    std::unique_ptr<PackedDataset> train;
    std::unique_ptr<PackedDataset> validation; // null without held-out documents
    std::string report;                        // lines for people
};

/// Plain text, for pretraining. Trains a tokenizer on it where the config names none.
TrainingData prepare_text(const TrainConfig& config);

/// Conversations of data.path and of the tasks, rendered by the chat template with its loss mask.
TrainingData prepare_chat(const TrainConfig& config);

} // namespace nvl
