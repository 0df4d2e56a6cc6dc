// Token embedding plus learned position (GPT-2, BERT), in one pass.
//
//   forward    y[t] = table[ids[t]] + places[positions[t]]
//   backward   as embedding's, once for each table
//
// table  (V, C)    places  (S, C)    ids, positions  (T) i32    y  (T, C)
// floor  forward moves 3 T C elements.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In table, In ids, In places, In positions)> embedding_add_positions_forward;

Tensor embedding_add_positions(Tensor table, Tensor ids, Tensor places, Tensor positions);

} // namespace nvl
