// From one row of logits to a token.
//
//   l += bias                                          logit_bias
//   l = l > 0 ? l / r : l * r                          repetition_penalty r, tokens of prompt and answer
//   l -= frequency * count + presence * (count > 0)    counts in the answer only
//   l /= temperature                                   0: the largest l wins, ties to the lowest id
//   top_k    keeps the k largest l, and what equals the k-th
//   top_p    keeps the likeliest tokens up to and with the one that reaches mass p (ties: lowest id first)
//   min_p    keeps p >= min_p * max p
//
// Each filter sees the distribution that the one before left, as in transformers. A token is drawn by
// walking the cumulated probabilities in order of ids: a function of (logits, parameters, seed, position).
// The log probability that is reported is the model's own: before bias, penalties, temperature and filters.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "engine/base/rng.h"

namespace nvl {

struct SamplingParams {
    double temperature = 1;
    int64_t top_k = 0; // 0: all
    double top_p = 1, min_p = 0;
    double repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
    std::vector<std::pair<int32_t, float>> logit_bias; // token, added logit (-inf forbids it)
};
/// An error that names the field and its range.
void validate(const SamplingParams& p);

/// What was said so far.
struct History {
    std::span<const int32_t> prompt, answer;
};

/// The distribution that sample() draws from.
std::vector<float> probabilities(std::span<const float> logits, const SamplingParams& p,
                                 History history = {});

struct Sampled {
    int32_t token;
    double logprob; // natural logarithm, of the unmodified distribution
};
Sampled sample(std::span<const float> logits, const SamplingParams& p, History history, const Random& random,
               uint64_t position);
/// The same with the random number itself, in [0, 1).
Sampled sample(std::span<const float> logits, const SamplingParams& p, History history, double uniform);

/// The largest logit, ties to the lowest id.
int32_t greedy(std::span<const float> logits);
/// log softmax(logits)[token]
double log_probability(std::span<const float> logits, int32_t token);

} // namespace nvl
