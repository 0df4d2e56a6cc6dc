// A dense copy of any view, for kernels that ask for dense rows.
//
//   forward    y = x          backward   dx = dy
//
// x  any shape and strides    y  the same shape, dense      floor  2 elements moved per element, each way.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In x)> contiguous_forward;
extern Kernel<void(Acc dx, In dy)> contiguous_backward;

Tensor contiguous(Tensor x);

} // namespace nvl
