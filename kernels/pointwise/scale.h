// Multiplication by a constant (embedding and residual multipliers).
//
//   forward    y = c x          backward   dx = c dy
//
// x, y  any shape, equal      floor  forward moves 2 elements, backward 2 per element.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In x, double c)> scale_forward;
extern Kernel<void(Acc dx, In dy, double c)> scale_backward;

Tensor scale(Tensor x, double c);

} // namespace nvl
