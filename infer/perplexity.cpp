#include "infer/perplexity.h"

#include <cmath>

#include "infer/engine.h"
#include "kernels/sample/sample.h"

namespace nvl {

double Perplexity::perplexity() const { return std::exp(nll / double(scored)); }
double Perplexity::bits_per_byte() const { return nll / std::log(2.0) / bytes; }

Perplexity perplexity(Model& model, const Tokenizer& tokenizer, Dtype dtype, const std::string& text,
                      int64_t context, int64_t most_chunks,
                      const std::function<void(const Perplexity&, int64_t)>& progress) {
    check(context >= 4 && context <= model.dims.context,
          "perplexity: a context of %ld tokens; expected 4 to %ld, what the model has", context,
          model.dims.context);
    std::vector<int32_t> ids = tokenizer.encode(text, false, true);
    auto n = int64_t(ids.size());
    check(
        n >= context,
        "perplexity: the text has %ld tokens, one chunk needs %ld; use a longer text or a smaller --context",
        n, context);
    int64_t chunks = most_chunks ? std::min(most_chunks, n / context) : n / context, half = context / 2;
    Perplexity p;
    p.tokens = n;
    Engine engine(model, {.dtype = dtype, .tokens_per_sequence = context});
    for (int64_t c = 0; c < chunks; c++) {
        std::span<int32_t> chunk = std::span(ids).subspan(size_t(c * context), size_t(context));
        if (tokenizer.adds_bos()) chunk[0] = tokenizer.bos();
        int sequence = engine.open();
        Engine::Feed before{sequence, chunk.subspan(0, size_t(half))};
        engine.feed({&before, 1}, [](size_t, int64_t, std::span<const float>) {});
        Engine::Feed after{sequence, chunk.subspan(size_t(half), size_t(context - half - 1)),
                           Engine::Logits::all};
        engine.feed({&after, 1}, [&](size_t, int64_t i, std::span<const float> logits) {
            int32_t next = chunk[size_t(half + i + 1)];
            p.nll -= log_probability(logits, next);
            p.bytes += tokenizer.bytes_of(next);
            p.scored++;
        });
        engine.close(sequence);
        p.chunks++;
        if (progress) progress(p, chunks);
    }
    return p;
}

} // namespace nvl
