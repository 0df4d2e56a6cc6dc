// A token for each row of logits, where the logits are: sample.h as an op, so that only tokens leave the
// device.
//
// logits  (B, V)    rows  (B, SAMPLE_ROW) i32: the parameters of each row, as a SampleRow
// history (B, L) i32: prompt, then answer, at the start of each row    biases  (B, 2 K) i32: token, float
// bits tokens  (B, 1) i32    logprobs  (B, 1) f64
//
// Equal to sample() token for token: weights are the same f32 polynomial, sums are exact (sample.cpp), so
// order does not matter. The log probability agrees to rounding in f64. Wrong input (a logit that is not a
// number, a token outside the vocabulary) is an error on the CPU and token -1 on a GPU: whoever reads it
// tells. floor  reads the logits once: 4 B V bytes.
#pragma once
#include "engine/tape/tape.h"
#include "kernels/sample/sample.h"

namespace nvl {

struct SampleRow {
    double temperature = 1, top_p = 1, min_p = 0;
    double repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
    double uniform = 0; // the random number of this draw
    int32_t top_k = 0, prompt = 0, answer = 0, biases = 0;
};
constexpr int64_t SAMPLE_ROW = sizeof(SampleRow) / sizeof(int32_t);
SampleRow sample_row(const SamplingParams& p, History history, const Random& random, uint64_t position);
/// Writes a row of each of the three tensors; an error if history or biases do not fit.
void fill_sample_row(const SamplingParams& p, History history, const Random& random, uint64_t position,
                     std::span<int32_t> row, std::span<int32_t> history_row, std::span<int32_t> biases_row);

extern Kernel<void(Out tokens, Out logprobs, In logits, In rows, In history, In biases)> sample_rows_forward;

struct SampledRows {
    Tensor tokens, logprobs;
};
SampledRows sample_rows(Tensor logits, Tensor rows, Tensor history, Tensor biases);

} // namespace nvl
