// Host-side words for row-wise kernels.
#pragma once
#include <algorithm>

#include "engine/base/parallel.h"
#include "engine/tensor/view.h"

namespace nvl {

/// Rows per task such that a task touches some 16 K elements: below that, waking a thread costs more than it
/// saves.
inline int64_t row_grain(int64_t cols) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols)); }

/// body(i) for every row of v, in parallel. Rows are independent, so the number of threads changes no bit.
template <class F> void for_rows(const View& v, F body) {
    parallel_for(v.rows(), row_grain(v.cols()), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) body(i);
    });
}

/// dst[c] = value(c), or += for an Acc that adds: one branch per row instead of one per element, so both
/// loops vectorise.
template <class X, class F> inline void put_row(const Acc& acc, X* dst, int64_t cols, F value) {
    if (acc.add)
        for (int64_t c = 0; c < cols; c++) dst[c] = X(sum_t<X>(dst[c]) + value(c));
    else
        for (int64_t c = 0; c < cols; c++) dst[c] = X(value(c));
}

} // namespace nvl
