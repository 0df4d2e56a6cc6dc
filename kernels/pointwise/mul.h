// Elementwise product.
//
//   forward    y = a b          backward   da = dy b    db = dy a
//
// a, b, y  any shape, equal      floor  forward moves 3 elements, backward 5 per element.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In a, In b)> mul_forward;
extern Kernel<void(Acc da, Acc db, In dy, In a, In b)> mul_backward;

Tensor mul(Tensor a, Tensor b);

} // namespace nvl
