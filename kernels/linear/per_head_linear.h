// A linear layer for each head (the absorbed projections of multi-head latent attention).
//
//   forward    y[t, h] = w[h] x[t, h]       backward   dx[t, h] = dy[t, h] w[h]    dw[h] = sum_t dy[t, h]^T
//   x[t, h]
//
// x (T, H, A)    y (T, H, B)    w (H, B, A), or (H, A, B) with Weights::in_out; w may be a slice of a larger
// matrix floor  2 T H A B FLOPs each for y, dx, dw.
#pragma once
#include "engine/tape/tape.h"
#include "kernels/linear/matrix.h"

namespace nvl {

extern Kernel<void(Out y, In x, In w, Weights order)> per_head_forward;
extern Kernel<void(Acc dx, In dy, In w, Weights order)> per_head_dx;
extern Kernel<void(AccSum dw, In dy, In x, Weights order)> per_head_dw;

Tensor per_head_linear(Tensor x, Tensor w, Weights order = Weights::out_in);

} // namespace nvl
