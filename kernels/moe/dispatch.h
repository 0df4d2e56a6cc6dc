// Rows in the order of their experts, and back.
//
//   moe_sort    source   (T K) i32: packed row n is the k-th choice of token t, source[n] = t K + k
//               offsets  (E + 1) i32: the rows of expert e are [offsets[e], offsets[e + 1]), in token order
//               position (T, K) i32: the packed row of a choice, -1 if it was dropped
//   permute     y[n] = x[source[n] / K]
//               backward   dx[t] = sum_k dy[position[t, k]]
//   unpermute   y[t] = sum_k weight[t, k] x[position[t, k]]
//               backward   dx[n] = weight dy[t]    dweight[t, k] = <dy[t], x[position[t, k]]>
//
// x (T, C) or (T K, C); weight (T, K) f32. Buffers are planned for all T K rows; how many each expert has is
// data. `capacity` > 0 keeps only the first so many tokens of an expert (dropped ones go on in the residual
// stream alone); 0 drops nothing. Packed rows that no choice has are zero.
//
// floor  permute and unpermute move (1 + K) C elements a token each way.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

struct Dispatch {
    Tensor source, position, offsets;
};

extern Kernel<void(Out source, Out position, Out offsets, In choice, int64_t capacity)> moe_sort_forward;
extern Kernel<void(Out y, In x, In source, In offsets, int64_t K)> permute_forward;
extern Kernel<void(Acc dx, In dy, In position)> permute_backward;
extern Kernel<void(Out y, In x, In weight, In position)> unpermute_forward;
extern Kernel<void(Acc dx, Acc dweight, In dy, In x, In weight, In source, In position, In offsets)>
    unpermute_backward;

Dispatch moe_sort(Tensor choice, int64_t experts, int64_t capacity = 0);
Tensor permute(Tensor x, const Dispatch& d);
Tensor unpermute(Tensor x, Tensor weight, const Dispatch& d);

} // namespace nvl
