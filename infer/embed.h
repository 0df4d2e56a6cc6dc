// Sentence embeddings: an encoder's last hidden states, pooled into one vector per text, as the files of a
// sentence-transformers folder say (modules.json, 1_Pooling/config.json).
//
//   mean   average over the tokens        cls   the first token's        then x / |x| where there is
//   Normalize
#pragma once
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "models/bert/bert.h"

namespace nvl {

class Embedder {
public:
    explicit Embedder(const std::string& path, Dtype dtype = Dtype::f32, Device device = Device::cpu);
    /// One vector per text; texts longer than max_tokens() are cut, as sentence-transformers does. A text's
    /// bits do not depend on the texts beside it.
    std::vector<std::vector<float>> embed(std::span<const std::string> texts);
    int64_t max_tokens() const { return max_tokens_; }
    int64_t tokens_of_last() const { return tokens_; }
    const Tokenizer& tokenizer() const { return tokenizer_; }

private:
    enum class Pooling : uint8_t { mean, cls };
    void read_pooling();
    std::vector<int> encode(const std::string& text) const;
    void run(std::span<const std::vector<int>> ids, std::vector<std::vector<float>>& out);
    std::vector<float> pool(const float* rows, int64_t n) const;

    std::string path_;
    Dtype dtype_;
    Store store_;
    std::unique_ptr<Model> model_;
    Bert* bert_;
    Tokenizer tokenizer_;
    Pooling pooling_ = Pooling::mean;
    bool normalize_ = true;
    int64_t max_tokens_, tokens_ = 0;
};

} // namespace nvl
