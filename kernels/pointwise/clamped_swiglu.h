// The gated unit of GPT-OSS: gate and value in alternating columns, both clamped.
//                                                                       OpenAI 2025, arXiv:2508.10925
//   forward    g = min(x[2f], limit)    u = clamp(x[2f + 1], -limit, limit)    y = (u + 1) g s(alpha g)
//   backward   dg = dy (u + 1) s (1 + alpha g (1 - s))    du = dy g s    zero where the clamp holds; s =
//   s(alpha g)
//
// x (..., 2F)    y (..., F)    s the logistic function
// floor  forward moves 3 elements, backward 5 per element of y.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In x, double alpha, double limit)> clamped_swiglu_forward;
extern Kernel<void(Acc dx, In dy, In x, double alpha, double limit)> clamped_swiglu_backward;

Tensor clamped_swiglu(Tensor x, double alpha, double limit);

} // namespace nvl
