// Trains a byte-level BPE: counts the chunks of a corpus, then merges the most frequent pair of neighbours
// again and again. Merges are those of Hugging Face's BpeTrainer, ties included (the pair of smaller ids
// wins), for any number of threads.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace nvl {

/// Special tokens of our own models, in order, at the end of the vocabulary: a conversation and its tool
/// calls, images and video, and three without a meaning yet.
const std::vector<std::string>& conversation_specials();

struct TrainOptions {
    int vocabulary_size = 32768; // bytes, merges and specials together
    std::string pattern = "gpt4-2";
    std::vector<std::string> specials = conversation_specials();
    int64_t min_count = 1;                             // pairs seen less often are not merged
    std::function<void(int done, int total)> progress; // about once a percent
};

class BpeTrainer {
public:
    explicit BpeTrainer(TrainOptions options);
    ~BpeTrainer();
    /// Counts the chunks of some documents, in parallel.
    void add(std::span<const std::string_view> documents);
    int64_t bytes() const { return bytes_; }
    /// Ids: 0-255 bytes in the order of their letters (unicode.h), then merges, then specials. A corpus with
    /// too few pairs for the vocabulary is an error that names the largest size it can fill.
    Tokenizer train();

private:
    class Counts;
    class Merger;
    TrainOptions options_;
    Splitter splitter_;
    std::vector<Counts> counts_; // one per thread
    int64_t bytes_ = 0;
};

} // namespace nvl
