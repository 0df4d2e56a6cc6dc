// The residual connection and the LayerNorm that follows it, in one pass.
//
//   forward    s = a + b      y = layernorm(s, w, bias)
//   backward   d = ds + layernorm_backward(dy)      da = d      db = d      dw, dbias as in layernorm
//
// a, b, s, y  (..., C)    w, bias  (C), bias may be absent    stats  (..., 2) f32 = mean, 1 / deviation
// floor  forward moves 4 elements per element, backward 5.
#pragma once
#include "kernels/norm/add_rmsnorm.h"

namespace nvl {

extern Kernel<void(Out s, Out y, Out stats, In a, In b, In w, In bias, double eps, bool biased)>
    add_layernorm_forward;
/// ds is read only if `residual`.
extern Kernel<void(Acc da, Acc db, AccSum dw, AccSum dbias, In ds, In dy, In s, In w, In stats,
                   bool residual)>
    add_layernorm_backward;

AddNorm add_layernorm(Tensor a, Tensor b, Tensor w, Tensor bias, double eps = 1e-5);

} // namespace nvl
