// Elementwise sum, the residual connection.
//
//   forward    y = a + b          backward   da = dy    db = dy
//
// a, b, y  any shape, equal
// floor  forward moves 3 elements, backward 4 per element: memory bound everywhere. Prefer add_rmsnorm in
// models.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In a, In b)> add_forward;

Tensor add(Tensor a, Tensor b);

} // namespace nvl
