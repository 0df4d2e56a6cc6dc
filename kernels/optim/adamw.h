// AdamW: Adam with decoupled weight decay.                            Loshchilov & Hutter 2019,
// arXiv:1711.05101
//
//   g *= clip        m += (1 - beta1) (g - m)        v = beta2 v + (1 - beta2) g^2
//   w = (1 - lr weight_decay) w - lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
//   amsgrad: the largest v so far stands in place of v in the denominator
//
// w, g, m, v of one shape, contiguous, f32 (f64 in tests). A bf16 parameter has an f32 master: the master is
// updated and w receives its rounded copy in the same pass. Numbers of the step: OptimStep, in a tensor.
// floor  28 bytes a parameter (30 with a bf16 copy): memory bound.
#pragma once
#include "kernels/optim/step.h"

namespace nvl {

struct AdamWState {
    Tensor m, v;
    Tensor max_v;  // empty: no amsgrad
    Tensor master; // empty: w itself is f32 or f64
};
/// Zero moments; a master equal to w if w is bf16.
AdamWState adamw_state(Store& store, const Tensor& w, bool amsgrad = false);

extern Kernel<void(InOut w, InOut m, InOut v, In g, In step, In clip)> adamw_plain;
extern Kernel<void(InOut w, InOut m, InOut v, InOut max_v, In g, In step, In clip)> adamw_amsgrad;
extern Kernel<void(InOut master, Out w, InOut m, InOut v, In g, In step, In clip)> adamw_master;
extern Kernel<void(InOut master, Out w, InOut m, InOut v, InOut max_v, In g, In step, In clip)>
    adamw_master_amsgrad;

/// Updates w by its gradient, scaled by `clip` (global_norm).
void adamw(Tensor w, const AdamWState& state, Tensor gradient, Tensor step, Tensor clip);

} // namespace nvl
