// A linear layer for each expert, over rows sorted by expert.               cf. MegaBlocks, arXiv:2211.15841
//
//   forward    y[n] = w[e] x[n] (+ b[e])    for offsets[e] <= n < offsets[e + 1]
//   backward   dx[n] = dy[n] w[e]    dw[e] = sum_n dy[n]^T x[n]    db[e] = sum_n dy[n]
//              dw and db of an expert without rows are zero
//
// x (R, C)    y (R, F)    w (E, F, C), or (E, C, F) with Weights::in_out    b (E, F)    offsets (E + 1) i32
//
// The offsets are data on the device: nothing about the counts is known when the program is planned. Rows
// from offsets[E] on belong to nobody: zero. No padding: an expert's rows are one product of any height. A
// row's bits depend on that row and w[e] alone.
//
// floor  2 R C F FLOPs each for y, dx, dw.
#pragma once
#include "engine/tape/tape.h"
#include "kernels/linear/matrix.h"

namespace nvl {

/// Without a bias any tensor stands in its place and `biased` is false.
extern Kernel<void(Out y, In x, In w, In b, In offsets, Weights order, bool biased)> grouped_forward;
extern Kernel<void(Acc dx, In dy, In w, In offsets, Weights order)> grouped_dx;
extern Kernel<void(AccSum dw, In dy, In x, In offsets, Weights order)> grouped_dw;
extern Kernel<void(AccSum db, In dy, In offsets)> grouped_db;

/// An empty b is no bias.
Tensor grouped_linear(Tensor x, Tensor w, Tensor b, Tensor offsets, Weights order = Weights::out_in);

} // namespace nvl
