// f64, for gradient checks: the same definition with plain loops. A slab of 32 columns of B is packed, then
// every row runs down it.
#include <algorithm>
#include <cmath>

#include "engine/base/memory.h"
#include "engine/base/parallel.h"
#include "kernels/linear/gemm_variant.h"

namespace nvl {

constexpr int COLS = 32;

// out = the leaves [first, first + count) of one row times the slab, summed as a tree.
static void tree(const double* a, int64_t stride, const double* slab, int64_t leaf, int first, int count,
                 double* out) {
    if (count > 1) {
        double right[COLS];
        tree(a, stride, slab, leaf, first, count / 2, out);
        tree(a, stride, slab, leaf, first + count / 2, count / 2, right);
        for (int j = 0; j < COLS; j++) out[j] = out[j] + right[j];
        return;
    }
    double c[COLS] = {};
    for (int64_t k = first * leaf; k < (first + 1) * leaf; k++)
        for (int j = 0; j < COLS; j++) c[j] = std::fma(a[k * stride], slab[k * COLS + j], c[j]);
    std::copy(c, c + COLS, out);
}

static double activate(double x, Epilogue activation) {
    if (activation == Epilogue::none) return x;
    return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

void gemm_f64(const GemmArgs& g) {
    check(!g.packed, "gemm: f64 has no packed weights");
    auto *A = static_cast<const double*>(g.A), *B = static_cast<const double*>(g.B);
    auto* residual = static_cast<const double*>(g.residual);
    auto* C = static_cast<double*>(g.C);
    auto bias = [&](int64_t n) {
        if (!g.bias) return 0.0;
        double x = 0;
        dispatch(g.bias_dtype, [&]<class X> { x = double(static_cast<const X*>(g.bias)[n]); });
        return x;
    };
    parallel_for((g.N + COLS - 1) / COLS, 1, [&](int64_t begin, int64_t end) {
        auto* slab = reinterpret_cast<double*>(scratch(size_t(g.K) * COLS * 8, 6));
        for (int64_t n0 = begin * COLS; n0 < std::min(g.N, end * COLS); n0 += COLS) {
            int64_t cols = std::min<int64_t>(COLS, g.N - n0);
            for (int64_t k = 0; k < g.K; k++)
                for (int64_t j = 0; j < COLS; j++)
                    slab[k * COLS + j] = j >= cols   ? 0
                                         : g.trans_b ? B[(n0 + j) * g.ldb + k]
                                                     : B[k * g.ldb + n0 + j];
            for (int64_t m = 0; m < g.M; m++) {
                double sum[COLS];
                tree(A + m * (g.trans_a ? 1 : g.lda), g.trans_a ? g.lda : 1, slab, g.K / g.leaves, 0,
                     g.leaves, sum);
                for (int64_t j = 0; j < cols; j++) {
                    double &c = C[m * g.ldc + n0 + j], x = activate(sum[j] + bias(n0 + j), g.activation);
                    if (residual) x = x + residual[m * g.ldr + n0 + j];
                    c = g.accumulate ? c + x : x;
                }
            }
        }
    });
}

} // namespace nvl
