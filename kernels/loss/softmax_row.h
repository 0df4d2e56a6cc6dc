// One row of logits: log-sum-exp and the gradient of the cross-entropy. Shared by cross_entropy and
// linear_cross_entropy.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/base/dtype.h"
#include "kernels/cpu/sums.h"

namespace nvl {

/// exp(x) for x <= 0; below -87 it is 0 (f32). NaN stays NaN. Branch-free, so that loops vectorise.
inline float exp_nonpositive(float x) {
    float in = x < -87.0f ? -87.0f : x;
    constexpr float MAGIC = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    float shifted = std::fma(in, 1.44269504f, MAGIC), n = shifted - MAGIC;
    float r = std::fma(n, -0.693359375f, in);
    r = std::fma(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = std::fma(p, r, c);
    p = std::fma(p, r * r, r) + 1;
    float scale = std::bit_cast<float>((std::bit_cast<int32_t>(shifted) + 127) << 23);
    return x < -87.0f ? 0.0f : p * scale;
}
inline double exp_nonpositive(double x) { return std::exp(x); }

/// tanh through exp_nonpositive: absolute error of some 1e-7 in f32.
inline float tanh_of(float x) {
    float e = exp_nonpositive(-2 * std::fabs(x));
    return std::copysign((1 - e) / (1 + e), x);
}
inline double tanh_of(double x) { return std::tanh(x); }

/// log(sum(exp(l))) = max + rest. NaN and infinite logits give NaN.
template <class A> struct LogSum {
    A max, rest;
    A lse() const { return max + rest; }
    A loss(A logit) const { return rest + (max - logit); } // loses less than lse - logit
};
template <class L> LogSum<sum_t<L>> log_sum_exp(const L* l, int64_t V) {
    using A = sum_t<L>;
    constexpr int LANES = 32;
    A top[LANES];
    std::fill(top, top + LANES, A(-INFINITY));
    int64_t c = 0;
    for (; c + LANES <= V; c += LANES)
        for (int k = 0; k < LANES; k++) top[k] = A(l[c + k]) > top[k] ? A(l[c + k]) : top[k];
    for (; c < V; c++) top[0] = std::max(top[0], A(l[c]));
    A max = *std::max_element(top, top + LANES);
    return {max, std::log(lane_sum<A>(V, [&](int64_t k) { return exp_nonpositive(A(l[k]) - max); }))};
}

/// What the gradient of one token's loss is made of: d logits = p * of_p - (at the label) of_label, p being
/// the softmax; times 1 - (l / cap)^2 where l was capped.
template <class A> struct RowGradient {
    A lse, of_p, of_label;
    int64_t label;
    A cap; // 0: none
};

/// d = gradient with respect to the logits l (or to what they were before the cap). d may start at the same
/// address as l: a block is read before it is written, and elements never grow.
template <class L, class D, class Store>
void softmax_gradient(const L* l, D* d, int64_t V, const RowGradient<sum_t<L>>& g, Store store) {
    using A = sum_t<L>;
    constexpr int64_t BLOCK = 512;
    A value[BLOCK];
    for (int64_t from = 0; from < V; from += BLOCK) {
        int64_t n = std::min(BLOCK, V - from);
        for (int64_t k = 0; k < n; k++) value[k] = g.of_p * exp_nonpositive(A(l[from + k]) - g.lse);
        if (g.label >= from && g.label < from + n) value[g.label - from] -= g.of_label;
        if (g.cap != 0)
            for (int64_t k = 0; k < n; k++) {
                A t = A(l[from + k]) / g.cap;
                value[k] *= 1 - t * t;
            }
        store(d + from, value, n);
    }
}

/// Stores a block through memcpy, since the target may overlay the logits in another type.
template <class D> struct StoreBlock {
    template <class A> void operator()(D* to, const A* value, int64_t n) const {
        D rounded[512];
        for (int64_t k = 0; k < n; k++) rounded[k] = D(value[k]);
        std::memcpy(static_cast<void*>(to), rounded, size_t(n) * sizeof(D));
    }
};

/// The label of row i: -1 for an ignored token (any negative label).
inline int64_t label_of(const int32_t* labels, int64_t i, int64_t V, const char* op) {
    int64_t label = labels[i];
    check(label < V, "%s: the label of token %ld is %ld, the vocabulary has %ld entries", op, i, label, V);
    return label < 0 ? -1 : label;
}

} // namespace nvl
