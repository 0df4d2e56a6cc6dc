// One row of logits: log-sum-exp and the gradient of the cross-entropy. Shared by cross_entropy and
// linear_cross_entropy.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/base/dtype.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/sums.h"

namespace nvl {

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
    return {max, std::log(lane_sum<A>(V, [&](int64_t k) { return vexp(A(l[k]) - max); }))};
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
        for (int64_t k = 0; k < n; k++) value[k] = g.of_p * vexp(A(l[from + k]) - g.lse);
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
