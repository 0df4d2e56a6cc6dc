// LayerNorm over the last dimension.                               Ba et al. 2016, arXiv:1607.06450
//
//   forward    m = mean(x)    r = 1 / sqrt(mean((x - m)^2) + eps)    xhat = (x - m) r    y = xhat w + b
//   backward   g = dy w       dx = r (g - mean(g) - xhat mean(g xhat))
//              dw = sum_rows(dy xhat)          db = sum_rows(dy)
//
// x, y  (..., C)    w, b  (C), b may be absent    stats  (..., 2) f32 = m, r, kept for backward
// floor  forward moves 2 and backward 3 elements per element of x.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, Out stats, In x, In w, In b, double eps, bool biased)> layernorm_forward;
extern Kernel<void(Acc dx, AccSum dw, AccSum db, In dy, In x, In w, In stats)> layernorm_backward;

/// Without a bias pass b = {}.
Tensor layernorm(Tensor x, Tensor w, Tensor b, double eps = 1e-5);

} // namespace nvl
