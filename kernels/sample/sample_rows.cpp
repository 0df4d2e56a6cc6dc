#include "kernels/sample/sample_rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

SampleRow sample_row(const SamplingParams& p, History history, const Random& random, uint64_t position) {
    validate(p);
    return {.temperature = p.temperature,
            .top_p = p.top_p,
            .min_p = p.min_p,
            .repetition_penalty = p.repetition_penalty,
            .presence_penalty = p.presence_penalty,
            .frequency_penalty = p.frequency_penalty,
            .uniform = random.uniform(position),
            .top_k = int32_t(std::min<int64_t>(p.top_k, INT32_MAX)),
            .prompt = int32_t(history.prompt.size()),
            .answer = int32_t(history.answer.size()),
            .biases = int32_t(p.logit_bias.size())};
}
void fill_sample_row(const SamplingParams& p, History history, const Random& random, uint64_t position,
                     std::span<int32_t> row, std::span<int32_t> history_row, std::span<int32_t> biases_row) {
    SampleRow r = sample_row(p, history, random, position);
    check(row.size() == size_t(SAMPLE_ROW) &&
              history.prompt.size() + history.answer.size() <= history_row.size() &&
              2 * p.logit_bias.size() <= biases_row.size(),
          "sample_rows: %zu tokens of history and %zu biases; there is room for %zu and %zu",
          history.prompt.size() + history.answer.size(), p.logit_bias.size(), history_row.size(),
          biases_row.size() / 2);
    std::memcpy(row.data(), &r, sizeof r);
    auto end = std::copy(history.prompt.begin(), history.prompt.end(), history_row.begin());
    std::copy(history.answer.begin(), history.answer.end(), end);
    for (size_t i = 0; i < p.logit_bias.size(); i++) {
        biases_row[2 * i] = p.logit_bias[i].first;
        biases_row[2 * i + 1] = std::bit_cast<int32_t>(p.logit_bias[i].second);
    }
}

// The random number is given; sample() asks for it by position.
static Sampled sample_one(std::span<const float> logits, const SampleRow& r, const int32_t* history,
                          const int32_t* biases) {
    SamplingParams p{.temperature = r.temperature,
                     .top_k = r.top_k,
                     .top_p = r.top_p,
                     .min_p = r.min_p,
                     .repetition_penalty = r.repetition_penalty,
                     .presence_penalty = r.presence_penalty,
                     .frequency_penalty = r.frequency_penalty};
    for (int32_t i = 0; i < r.biases; i++)
        p.logit_bias.push_back({biases[2 * i], std::bit_cast<float>(biases[2 * i + 1])});
    History h{{history, size_t(r.prompt)}, {history + r.prompt, size_t(r.answer)}};
    return sample(logits, p, h, r.uniform);
}

static void forward(Out tokens, Out logprobs, In logits, In rows, In history, In biases) {
    int64_t V = logits.cols();
    std::vector<float> l(static_cast<size_t>(V));
    for (int64_t b = 0; b < logits.dim(0); b++) {
        dispatch(logits.dtype, [&]<class X> {
            const X* from = logits.row<X>(b);
            for (int64_t v = 0; v < V; v++) l[size_t(v)] = float(from[v]);
        });
        SampleRow r;
        std::memcpy(&r, rows.row<int32_t>(b), sizeof r);
        Sampled s = sample_one(l, r, history.row<int32_t>(b), biases.row<int32_t>(b));
        *tokens.row<int32_t>(b) = s.token;
        *logprobs.row<double>(b) = s.logprob;
    }
}

constinit Kernel<void(Out, Out, In, In, In, In)> sample_rows_forward{"sample_rows", forward};

SampledRows sample_rows(Tensor logits, Tensor rows, Tensor history, Tensor biases) {
    check(logits.shape().rank == 2 && rows.shape().rank == 2 && rows.dim(1) == SAMPLE_ROW &&
              rows.dim(0) == logits.dim(0) && history.dim(0) == logits.dim(0) &&
              biases.dim(0) == logits.dim(0) && rows.dtype() == Dtype::i32 && history.dtype() == Dtype::i32 &&
              biases.dtype() == Dtype::i32,
          "sample_rows: logits %s, rows %s, history %s, biases %s; expected (B,V) and (B,%ld), (B,L), (B,2K) "
          "of i32",
          logits.shape().text().c_str(), rows.shape().text().c_str(), history.shape().text().c_str(),
          biases.shape().text().c_str(), long(SAMPLE_ROW));
    Tape& t = tape();
    SampledRows r{t.tensor("tokens", {logits.dim(0), 1}, Dtype::i32, logits.type),
                  t.tensor("logprobs", {logits.dim(0), 1}, Dtype::f64, logits.type)};
    t.run(sample_rows_forward, r.tokens, r.logprobs, logits, rows, history, biases);
    return r;
}

// Every kind of parameters in turn, a row each.
static SamplingParams spec_params(int64_t b) {
    switch (b % 9) {
    case 0: return {.temperature = 0};
    case 1: return {.temperature = 0.8};
    case 2: return {.top_k = 5};
    case 3: return {.temperature = 1.3, .top_p = 0.7};
    case 4: return {.min_p = 0.2};
    case 5: return {.repetition_penalty = 1.4, .presence_penalty = 0.3, .frequency_penalty = 0.2};
    case 6: return {.temperature = 2, .top_k = 20, .top_p = 0.9, .min_p = 0.02};
    case 7:
        return {.temperature = 0, .repetition_penalty = 3, .logit_bias = {{1, 2.5f}, {2, -1.f}, {1, 1.f}}};
    default:
        return {.temperature = 1.5, .top_p = 0.95, .frequency_penalty = 0.5, .logit_bias = {{3, -INFINITY}}};
    }
}
static RegisterOp op{{
    .name = "sample_rows",
    .build = [](Case& c) -> std::vector<Tensor> {
        int64_t V = c["V"], L = 11, K = 3;
        Dim B = c.rows("B");
        Tensor logits = c.constant({B, V}, double(c.get("scale", 3)));
        std::vector<int32_t> rows(size_t(B.size * SAMPLE_ROW)), history(size_t(B.size * L)),
            biases(size_t(B.size * 2 * K));
        for (int64_t b = 0; b < B.size; b++) {
            std::vector<int32_t> said;
            for (int64_t i = 0; i < b % (L + 1); i++) said.push_back(int32_t(i * i % V));
            std::span<const int32_t> all = said;
            SamplingParams p = spec_params(b);
            for (auto& [token, bias] : p.logit_bias) token = int32_t(token % V);
            fill_sample_row(p, {all.first(all.size() / 3), all.subspan(all.size() / 3)}, Random(3, "spec"),
                            uint64_t(b), std::span(rows).subspan(size_t(b * SAMPLE_ROW), SAMPLE_ROW),
                            std::span(history).subspan(size_t(b * L), size_t(L)),
                            std::span(biases).subspan(size_t(b * 2 * K), size_t(2 * K)));
        }
        auto tensor = [&](int64_t cols, const std::vector<int32_t>& values) {
            return c.integers({B, cols}, [&](int64_t i) { return values[size_t(i)]; });
        };
        auto [tokens, logprobs] =
            sample_rows(logits, tensor(SAMPLE_ROW, rows), tensor(L, history), tensor(2 * K, biases));
        return {tokens, logprobs};
    },
    .cases = {"B=9 V=7", "B=27 V=1003", "B=18 V=4100 scale=0", "B=9 V=2048 scale=8", "bench B=8 V=151936"},
    .gradients = false,
}};

} // namespace nvl
