// Global gradient norm and the clip scale.
//
//   norm = sqrt(sum over all gradients of g^2)      scale = min(1, max_norm / (norm + 1e-6))
//
// Blocks of 16,384 elements are summed in f64 and added in order: no bit depends on threads. A NaN or an Inf
// anywhere gives a norm that is not finite and a NaN scale; optimisers then change nothing, so the run can
// stop with its weights intact and name the tensor by `squares`.
// floor  reads every gradient once: memory bound.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

extern Kernel<void(Out square, In g)> square_sum;
extern Kernel<void(Out clip, In squares, double max_norm)> clip_scale;

struct GlobalNorm {
    Tensor clip;    // (2) f64: norm, scale
    Tensor squares; // (number of gradients) f64, in their order
};
/// max_norm = 0: no clipping, the scale is 1.
GlobalNorm global_norm(const std::vector<Tensor>& gradients, double max_norm);

} // namespace nvl
