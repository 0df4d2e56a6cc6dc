// RMSNorm over the last dimension.                          Zhang & Sennrich 2019, arXiv:1910.07467
//
//   forward    r = 1 / sqrt(mean(x^2) + eps)      y = x * r * w
//   backward   g = dy * w      dx = r * (g - x * r^2 * mean(g * x))      dw = sum_rows(dy * x * r)
//
// x, y  (..., C)    w  (C)     r  (..., 1) f32, kept for backward. A per-head norm (qk-norm) is the same op
// on (T, H, D). With offset = 1 the factor is 1 + w, as Gemma stores it.
// floor  forward moves 2 and backward 3 elements per element of x: memory bound everywhere.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, Out r, In x, In w, double eps, double offset)> rmsnorm_forward;
extern Kernel<void(Acc dx, AccSum dw, In dy, In x, In w, In r, double offset)> rmsnorm_backward;

Tensor rmsnorm(Tensor x, Tensor w, double eps = 1e-6, double offset = 0);

} // namespace nvl
