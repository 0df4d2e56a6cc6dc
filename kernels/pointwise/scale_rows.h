// Each row times a number of its own (the gate of a shared expert).
//
//   forward    y[t] = g[t] x[t]          backward   dx[t] = g[t] dy[t]    dg[t] = <dy[t], x[t]>
//
// x, y (T, C)    g (T, 1)    floor  forward moves 2 elements, backward 4 per element.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In x, In g)> scale_rows_forward;
extern Kernel<void(Acc dx, Acc dg, In dy, In x, In g)> scale_rows_backward;

Tensor scale_rows(Tensor x, Tensor g);

} // namespace nvl
