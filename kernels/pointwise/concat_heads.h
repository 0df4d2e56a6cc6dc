// The elements of two tensors side by side in each head; the second may have one head that all share (the
// rotated part of a key in multi-head latent attention).
//
//   forward    y[t, h] = a[t, h] | b[t, h or 0]          backward   da = dy[.., :Da]    db = dy[.., Da:],
//   summed over
//              heads in order where they share b
//
// a (T, H, Da)    b (T, H, Db) or (T, 1, Db)    y (T, H, Da + Db)    floor  2 elements moved per element of
// y, each way.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In a, In b)> concat_heads_forward;
extern Kernel<void(Acc da, Acc db, In dy)> concat_heads_backward;

Tensor concat_heads(Tensor a, Tensor b);

} // namespace nvl
