// The residual connection and the norm that follows it, in one pass.
//
//   forward    s = a + b      y = rmsnorm(s, w)
//   backward   d = ds + rmsnorm_backward(dy)      da = d      db = d      dw as in rmsnorm
//
// a, b, s, y  (..., C)    w  (C)    r  (..., 1) f32. s goes on as the residual stream, y into the block.
// floor  forward moves 4 elements per element, backward 5; add and rmsnorm one after the other move 5 and 8.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out s, Out y, Out r, In a, In b, In w, double eps, double offset)> add_rmsnorm_forward;
/// ds is read only if `residual`: after the last block nothing else uses s.
extern Kernel<void(Acc da, Acc db, AccSum dw, In ds, In dy, In s, In w, In r, double offset, bool residual)>
    add_rmsnorm_backward;

struct AddNorm {
    Tensor sum, y;
};
AddNorm add_rmsnorm(Tensor a, Tensor b, Tensor w, double eps = 1e-6, double offset = 0);

} // namespace nvl
