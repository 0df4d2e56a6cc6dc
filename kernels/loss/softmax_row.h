// One row of logits: log-sum-exp and the gradient of the cross-entropy. Shared by cross_entropy and
// linear_cross_entropy.
#pragma once
#include <algorithm>
#include <cmath>

#include "engine/base/dtype.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"
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

/// d[v - from] = the gradient with respect to logit v (to what it was before the cap), v in [from, to).
template <class L, class D> void softmax_gradient(const L* l, D* d, int64_t from, int64_t to,
                                                  const RowGradient<sum_t<L>>& g, const Acc& acc) {
    using A = sum_t<L>;
    constexpr int64_t BLOCK = 512;
    A value[BLOCK];
    for (; from < to; from += BLOCK, d += BLOCK) {
        int64_t n = std::min(BLOCK, to - from);
        for (int64_t k = 0; k < n; k++) value[k] = g.of_p * vexp(A(l[from + k]) - g.lse);
        if (g.label >= from && g.label < from + n) value[g.label - from] -= g.of_label;
        if (g.cap != 0)
            for (int64_t k = 0; k < n; k++) {
                A t = A(l[from + k]) / g.cap;
                value[k] *= 1 - t * t;
            }
        put_row(acc, d, n, [&](int64_t k) { return value[k]; });
    }
}

/// The label of row i: -1 for an ignored token (any negative label).
inline int64_t label_of(const int32_t* labels, int64_t i, int64_t V, const char* op) {
    int64_t label = labels[i];
    check(label < V, "%s: the label of token %ld is %ld, the vocabulary has %ld entries", op, i, label, V);
    return label < 0 ? -1 : label;
}

} // namespace nvl
