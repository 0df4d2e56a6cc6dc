// What the norms' ops call: both norms, with and without the residual. Defined in rows.cuh, compiled once
// for each norm (rmsnorm.cu, layernorm.cu).
#pragma once
#include <algorithm>

#include "engine/device/cuda.h"

namespace nvl {

/// y and stats of s = a + b, or of a if s is empty. stats: 1 / rms, or mean and 1 / deviation (LAYER).
template <bool LAYER> void run_norm_forward(const char* op, const View& s, const View& y, const View& stats,
                                            const View& a, const View& b, const View& w, const View& bias,
                                            double eps, double offset);
/// ds may be empty; da and db get the same value.
template <bool LAYER> void run_norm_backward(const char* op, const Acc& da, const Acc& db, const AccSum& dw,
                                             const AccSum& dbias, const View& ds, const View& dy,
                                             const View& x, const View& w, const View& stats, double offset);

/// Blocks of rows whose sums for weight gradients meet in the second stage: a function of their number alone,
/// so bits do not depend on the device. At least 32 rows a block keep the partial sums at a few percent of
/// what is moved anyway.
inline int64_t norm_blocks(int64_t rows) { return std::clamp<int64_t>((rows + 31) / 32, 1, 256); }
/// Bytes for those sums: `sums` per channel.
inline int64_t norm_workspace(const View& x, bool wanted, int sums) {
    return wanted ? norm_blocks(x.rows()) * x.cols() * sums * int64_t(sizeof(float)) : 0;
}

} // namespace nvl
