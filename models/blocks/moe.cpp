#include "models/blocks/moe.h"

#include "kernels/linear/linear.h"
#include "kernels/moe/dispatch.h"
#include "kernels/pointwise/add.h"
#include "kernels/pointwise/clamped_swiglu.h"
#include "kernels/pointwise/gated.h"

namespace nvl {

void MoeWeights::each(const MoeConfig& c, const std::string& prefix, const Visit& visit) {
    const MoeNames& n = c.names;
    double share = double(c.router.top_k) / double(c.experts); // of the experts that a token goes through
    auto experts = [&](const std::string& name, Tensor& t, Shape shape, double std) {
        visit({prefix + name, shape, shape.rank == 3 ? Role::matrix : Role::vector, 0, std, share}, t);
    };
    visit({prefix + n.router + ".weight", {c.experts, c.C}, Role::matrix, 0, c.std}, router);
    if (c.router_bias) visit({prefix + n.router + ".bias", {c.experts}, Role::vector}, router_bias);
    if (c.correction)
        visit({prefix + n.router + ".e_score_correction_bias", {c.experts}, Role::buffer}, correction);
    if (c.alternating) {
        experts(n.gate, gate, {c.experts, c.C, 2 * c.F}, c.std);
        experts(n.gate + "_bias", gate_bias, {c.experts, 2 * c.F}, 0);
        experts(n.down, down, {c.experts, c.F, c.C}, c.output_std);
        experts(n.down + "_bias", down_bias, {c.experts, c.C}, 0);
    } else {
        experts(n.gate, gate, {c.experts, c.F, c.C}, c.std);
        experts(n.up, up, {c.experts, c.F, c.C}, c.std);
        experts(n.down, down, {c.experts, c.C, c.F}, c.output_std);
    }
    if (!c.shared_F) return;
    MlpConfig m{
        .C = c.C, .F = c.shared_F, .activation = c.activation, .std = c.std, .output_std = c.output_std};
    shared.each(m, prefix + n.shared, visit);
}

// x (R, C), sorted by expert -> (R, C).
static Tensor experts(Tensor x, const MoeWeights& w, const MoeConfig& c, Tensor offsets) {
    if (c.alternating) {
        Tensor gate_up = grouped_linear(x, w.gate, w.gate_bias, offsets, Weights::in_out);
        return grouped_linear(clamped_swiglu(gate_up, c.alpha, c.limit), w.down, w.down_bias, offsets,
                              Weights::in_out);
    }
    Tensor gate = grouped_linear(x, w.gate, {}, offsets), up = grouped_linear(x, w.up, {}, offsets);
    return grouped_linear(gated(c.activation, gate, up), w.down, {}, offsets);
}

MoeOutput moe_block(Tensor h, const MoeWeights& w, const MoeConfig& c) {
    Module here("moe");
    Tensor logits = linear(h, w.router, w.router_bias);
    Routing to = route(logits, c.router, w.correction);
    Dispatch d = moe_sort(to.choice, c.experts);
    Tensor y = unpermute(experts(permute(h, d), w, c, d.offsets), to.weight, d);
    if (c.shared_F) {
        MlpConfig m{.C = c.C, .F = c.shared_F, .activation = c.activation};
        y = add(y, mlp_block(h, w.shared, m));
    }
    RoutingSums sums = routing_sums(logits, to.choice);
    return {y, sums.sums, sums.counts, c.z_loss ? router_z_loss(logits) : Tensor{}};
}

} // namespace nvl
