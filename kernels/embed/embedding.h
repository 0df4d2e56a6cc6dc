// Rows of a table by number: token embeddings, learned positions.
//
//   forward    y[t] = table[ids[t]]          backward   dtable[v] = sum over t with ids[t] = v of dy[t]
//
// table  (V, C)    ids  (T) i32    y  (T, C)
// An id outside [0, V) is an error that names it. Backward sorts the tokens by id; each row of the gradient
// belongs to one thread, which adds its tokens in order, so bits depend on the tokens alone. floor  forward
// moves 2 T C elements. Backward reads T C and writes the rows it touches when it adds to a gradient (a table
// shared with the output layer), else all V rows.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In table, In ids)> embedding_forward;
extern Kernel<void(AccSum dtable, In dy, In ids)> embedding_backward;

Tensor embedding(Tensor table, Tensor ids);

} // namespace nvl
