// Smooth clipping of logits to (-c, c).                                  Gemma 2, arXiv:2408.00118
//
//   forward    y = c tanh(x / c)          backward   dx = dy (1 - tanh(x / c)^2)
//
// x, y  any shape, equal      floor  forward moves 2 elements, backward 3 per element.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out y, In x, double cap)> softcap_forward;
extern Kernel<void(Acc dx, In dy, In x, double cap)> softcap_backward;

Tensor softcap(Tensor x, double cap);

} // namespace nvl
