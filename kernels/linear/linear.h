// Linear layer.
//
//   forward    y = x w^T (+ b)     backward   dx = dy w    dw = dy^T x    db = sum_rows(dy)
//
// x (..., C)    w (F, C)    b (F)    y (..., F).  w may be a transposed view: GPT-2 stores (C, F), so it says
// linear(x, transpose(w, 0, 1), b).  x may have strided rows.
// dx, dw and db are steps of their own, so that a pass can defer what only feeds weights.
// A row of y and dx depends on that row alone (gemm.h): alone or in a batch, the same bits.
// floor  2 T C F FLOPs each for y, dx, dw: compute bound from some 200 rows, else the bytes of w.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In x, In w)> linear_forward;
extern Kernel<void(Out y, In x, In w, In b)> linear_bias_forward;
extern Kernel<void(Acc dx, In dy, In w)> linear_dx;
extern Kernel<void(AccSum dw, In dy, In x)> linear_dw;
extern Kernel<void(AccSum db, In dy)> linear_db;

Tensor linear(Tensor x, Tensor w);
/// With a bias; an empty b is no bias.
Tensor linear(Tensor x, Tensor w, Tensor b);
/// As linear(x, w), but y in the type that sums have (f32 for bf16), and without a backward: logits.
Tensor linear_sums(Tensor x, Tensor w);

} // namespace nvl
