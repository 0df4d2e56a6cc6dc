// Perplexity: how well a model predicts a text.
//
// The text is cut into chunks of `context` tokens that do not overlap; in each the second half is scored, so
// that every scored token has at least half a context before it. Tokens beyond the last whole chunk are left
// out. A model whose tokenizer puts a bos in front gets one at the front of the text and in place of the
// first token of each chunk.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "models/model.h"

namespace nvl {

struct Perplexity {
    double nll = 0;     // sum over the scored tokens, natural logarithm
    int64_t scored = 0; // tokens: context / 2 - 1 for each chunk of an even context
    int64_t tokens = 0; // of the whole text
    int64_t chunks = 0; // that were scored
    double bytes = 0;   // that the scored tokens stand for
    double perplexity() const;
    double bits_per_byte() const;
};

/// `most_chunks` 0: all. progress(chunk, chunks, so far) is called after each chunk.
Perplexity perplexity(Model& model, const Tokenizer& tokenizer, Dtype dtype, const std::string& text,
                      int64_t context, int64_t most_chunks = 0,
                      const std::function<void(const Perplexity&, int64_t chunks)>& progress = nullptr);

} // namespace nvl
