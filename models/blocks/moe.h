// A mixture of experts in place of the MLP.                   Shazeer et al. 2017, arXiv:1701.06538
//
//   l = router h (+ b)        (weight, choice) = route(l)
//   y_t = sum_k weight_tk expert_{choice_tk}(h_t) (+ shared(h_t))
//   expert(h) = down(act(gate h) * (up h))
//
// Experts are stacked: one tensor (E, F, C) for all gates, and so on; checkpoints hold a tensor for each of
// them, or all in one. Shared experts are a plain MLP that every token goes through.
#pragma once
#include "kernels/moe/balance.h"
#include "kernels/moe/grouped_linear.h"
#include "kernels/moe/router.h"
#include "models/blocks/mlp.h"

namespace nvl {

/// How a family's checkpoints name the parts; experts as "experts.*.gate_proj.weight", * being the number.
struct MoeNames {
    std::string router = "gate", gate = "experts.*.gate_proj.weight", up = "experts.*.up_proj.weight",
                down = "experts.*.down_proj.weight", shared = "shared_experts.";
};

struct MoeConfig {
    int64_t C = 0, experts = 0, F = 0; // F: of one expert
    RouterOptions router;
    bool router_bias = false, correction = false; // correction: of the choice, balanced without gradients
    Activation activation = Activation::silu;
    /// GPT-OSS: gate and up in one tensor (E, C, 2 F), columns alternating, biases, a clamped unit; down (E,
    /// F, C).
    bool alternating = false;
    double alpha = 1.702, limit = 7; // of the clamped unit
    int64_t shared_F = 0;            // 0: no shared experts
    double balance = 0, z_loss = 0;  // coefficients of the auxiliary losses; 0: not computed
    double std = 0.02, output_std = 0.02;
    MoeNames names{};
};

struct MoeWeights {
    Tensor router, router_bias, correction, gate, up, down, gate_bias, down_bias;
    MlpWeights shared;
    void each(const MoeConfig& c, const std::string& prefix, const Visit& visit);
};

/// y (T, C) and what the auxiliary losses and the balancing look at.
struct MoeOutput {
    Tensor y, sums, counts, z_loss; // sums, counts (E): see routing_sums; z_loss (1), empty if not wanted
};

MoeOutput moe_block(Tensor h, const MoeWeights& w, const MoeConfig& c);

} // namespace nvl
