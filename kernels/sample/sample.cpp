#include "kernels/sample/sample.h"

#include <algorithm>
#include <unordered_map>

#include "engine/base/check.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/sums.h"

namespace nvl {

void validate(const SamplingParams& p) {
    check(p.temperature >= 0 && std::isfinite(p.temperature), "temperature is %g; expected 0 or more",
          p.temperature);
    check(p.top_k >= 0, "top_k is %ld; expected 0 (all) or more", p.top_k);
    check(p.top_p > 0 && p.top_p <= 1, "top_p is %g; expected a number in (0, 1]", p.top_p);
    check(p.min_p >= 0 && p.min_p <= 1, "min_p is %g; expected a number in [0, 1]", p.min_p);
    check(p.repetition_penalty > 0 && std::isfinite(p.repetition_penalty),
          "repetition_penalty is %g; expected a positive number", p.repetition_penalty);
    check(std::isfinite(p.presence_penalty) && std::isfinite(p.frequency_penalty),
          "presence_penalty is %g and frequency_penalty %g; expected finite numbers", p.presence_penalty,
          p.frequency_penalty);
}

static float largest(std::span<const float> l) {
    constexpr size_t LANES = 32;
    float top[LANES];
    std::fill(top, top + LANES, -INFINITY);
    size_t i = 0;
    for (; i + LANES <= l.size(); i += LANES)
        for (size_t k = 0; k < LANES; k++) top[k] = l[i + k] > top[k] ? l[i + k] : top[k];
    for (; i < l.size(); i++) top[0] = std::max(top[0], l[i]);
    float max = *std::max_element(top, top + LANES);
    check(std::isfinite(max), "sampling: the largest of %zu logits is %g; expected a finite number", l.size(),
          max);
    return max;
}

int32_t greedy(std::span<const float> logits) {
    float max = largest(logits);
    return int32_t(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

double log_probability(std::span<const float> logits, int32_t token) {
    check(token >= 0 && size_t(token) < logits.size(), "sampling: token %d of %zu", token, logits.size());
    float max = largest(logits);
    const float* l = logits.data();
    double sum =
        lane_sum<double>(int64_t(logits.size()), [&](int64_t i) { return double(vexp(l[i] - max)); });
    check(std::isfinite(sum), "sampling: a logit is not a number");
    return double(l[token]) - double(max) - std::log(sum);
}

static void apply_bias_and_penalties(std::span<float> l, const SamplingParams& p, History history) {
    auto valid = [&](int32_t t) {
        check(t >= 0 && size_t(t) < l.size(), "sampling: token %d is outside the vocabulary of %zu", t,
              l.size());
        return size_t(t);
    };
    for (auto [token, bias] : p.logit_bias) l[valid(token)] += bias;
    bool repetition = p.repetition_penalty != 1,
         counting = p.presence_penalty != 0 || p.frequency_penalty != 0;
    if (!repetition && !counting) return;
    std::unordered_map<int32_t, int64_t> counts; // in the answer; 0 for tokens of the prompt alone
    if (repetition)
        for (int32_t t : history.prompt) counts[t];
    for (int32_t t : history.answer) counts[t]++;
    float r = float(p.repetition_penalty);
    for (auto [token, n] : counts) {
        float& x = l[valid(token)];
        x = x > 0 ? x / r : x * r;
        if (n) x -= float(p.frequency_penalty * double(n) + p.presence_penalty);
    }
}

// The filters set the probabilities of what they drop to 0. Top-k and top-p look for the probability at which
// a sum over the likeliest tokens (of ones, or of their probabilities) reaches `wanted`: by the leading bits
// of positive floats, which order as they do, then by sorting the few that share them. No long tail is
// sorted.

// What a weight in [0, 1] counts in sums: a multiple of 2^-34. Up to 2^19 of them add up without rounding, so
// every order and every device finds the same crossing; what a draw in 10^10 would show is lost.
static double mass(float x) { return (double(x) + 0x1.8p18) - 0x1.8p18; }

static size_t bin_of(float x) { return std::min<uint32_t>(std::bit_cast<uint32_t>(x) >> 18, 4095); }

struct Crossing {
    size_t bin;               // above it all is kept, below it nothing
    std::vector<int32_t> ids; // in it, likeliest first, ties by id
    size_t kept;              // of them, up to and with the one that reaches it
};
template <class F> static Crossing find_crossing(std::span<const float> w, double wanted, F addend) {
    std::vector<double> sums(4096);
    for (float x : w) sums[bin_of(x)] += addend(x);
    double sum = 0;
    Crossing c{4095, {}, 0};
    while (c.bin > 0 && sum + sums[c.bin] < wanted) sum += sums[c.bin--];
    for (size_t i = 0; i < w.size(); i++)
        if (bin_of(w[i]) == c.bin) c.ids.push_back(int32_t(i));
    std::stable_sort(c.ids.begin(), c.ids.end(),
                     [&](int32_t a, int32_t b) { return w[size_t(a)] > w[size_t(b)]; });
    while (c.kept < c.ids.size() && (c.kept == 0 || sum < wanted)) sum += addend(w[size_t(c.ids[c.kept++])]);
    return c;
}

static void keep_top_k(std::span<float> w, int64_t k) {
    if (k <= 0 || size_t(k) >= w.size()) return;
    Crossing c = find_crossing(w, double(k), [](float) { return 1.0; });
    float least = w[size_t(c.ids[c.kept - 1])];
    for (float& x : w) x = x < least ? 0 : x;
}

static double total_of(std::span<const float> w) {
    const float* p = w.data();
    return lane_sum<double>(int64_t(w.size()), [&](int64_t i) { return mass(p[i]); });
}

static void keep_top_p(std::span<float> w, double p) {
    if (p >= 1) return;
    Crossing c = find_crossing(w, p * total_of(w), mass);
    for (size_t i = c.kept; i < c.ids.size(); i++) w[size_t(c.ids[i])] = 0;
    for (float& x : w) x = bin_of(x) < c.bin ? 0 : x;
}

static void keep_min_p(std::span<float> w, double min_p) {
    float least = float(min_p) * *std::max_element(w.begin(), w.end());
    for (float& x : w) x = x < least ? 0 : x;
}

// Unnormalised probabilities after everything.
static std::vector<float> weights(std::span<const float> logits, const SamplingParams& p, History history) {
    validate(p);
    check(!logits.empty(), "sampling: no logits");
    std::vector<float> l(logits.begin(), logits.end());
    apply_bias_and_penalties(l, p, history);
    if (p.temperature == 0) {
        size_t best = size_t(greedy(l));
        std::fill(l.begin(), l.end(), 0.0f);
        l[best] = 1;
        return l;
    }
    float t = float(p.temperature), max = largest(l);
    for (float& x : l) x = vexp((x - max) / t);
    keep_top_k(l, p.top_k);
    keep_top_p(l, p.top_p);
    if (p.min_p > 0) keep_min_p(l, p.min_p);
    return l;
}

std::vector<float> probabilities(std::span<const float> logits, const SamplingParams& p, History history) {
    std::vector<float> w = weights(logits, p, history);
    double total = total_of(w);
    check(std::isfinite(total), "sampling: a logit is not a number");
    for (float& x : w) x = float(double(x) / total);
    return w;
}

Sampled sample(std::span<const float> logits, const SamplingParams& p, History history, const Random& random,
               uint64_t position) {
    return sample(logits, p, history, random.uniform(position));
}
Sampled sample(std::span<const float> logits, const SamplingParams& p, History history, double uniform) {
    std::vector<float> w = weights(logits, p, history);
    double total = total_of(w);
    check(std::isfinite(total), "sampling: a logit is not a number");
    double target = uniform * total, sum = 0;
    size_t chosen = 0;
    for (size_t i = 0; i < w.size(); i++) {
        double m = mass(w[i]);
        if (m == 0) continue;
        chosen = i; // the last one stands if rounding brings the target to the whole sum
        sum += m;
        if (sum > target) break;
    }
    return {int32_t(chosen), log_probability(logits, int32_t(chosen))};
}

} // namespace nvl
