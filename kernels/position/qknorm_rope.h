// RMSNorm of each head and the rotation after it, in one pass: what Qwen3, Gemma 3 and OLMo do to q and k.
//
//   forward    y = rope(rmsnorm(x, w), angles)
//   backward   g = dy turned back; then rmsnorm's backward of g
//
// x, y  (T, H, D)    w  (D), shared by the heads    angles  (T, d) f32    r  (T, H, 1) f32, kept for backward
// The normed head is not rounded to bf16 on its way into the rotation.
// floor  forward moves 2 elements per element, backward 3; one after the other the two ops move 4 and 5.
#pragma once
#include "kernels/position/rope.h"

namespace nvl {

extern Kernel<void(Out y, Out r, In x, In w, In angles, double eps, double offset, Pairs pairs)>
    qknorm_rope_forward;
extern Kernel<void(Acc dx, AccSum dw, In dy, In x, In w, In r, In angles, double offset, Pairs pairs)>
    qknorm_rope_backward;

/// With offset = 1 the factor of the norm is 1 + w.
Tensor qknorm_rope(Tensor x, Tensor w, Tensor angles, double eps = 1e-6, double offset = 0,
                   Pairs pairs = Pairs::half);

} // namespace nvl
