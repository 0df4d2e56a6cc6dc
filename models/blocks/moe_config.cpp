// Mixtures of experts as config.json describes them.
#include "models/blocks/decoder.h"

namespace nvl {

MoeConfig read_moe(const ConfigReader& c, const DecoderConfig& d, const char* expert_size) {
    MoeConfig m;
    m.C = d.attention.C, m.std = d.attention.std, m.output_std = d.attention.output_std;
    m.activation = d.mlp.activation;
    const char* experts = nullptr;
    for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"})
        if (!experts && c.has(key)) experts = key;
    check(experts,
          "config.json: the number of experts is missing; expected num_experts, num_local_experts or "
          "n_routed_experts");
    m.experts = c.size(experts, 1 << 20);
    m.F = c.size(expert_size);
    m.router.top_k = c.size("num_experts_per_tok", 1 << 20);
    check(m.router.top_k <= m.experts,
          "config.json: num_experts_per_tok %ld is more than the %ld experts of %s", m.router.top_k,
          m.experts, experts);
    m.balance = c.number("router_aux_loss_coef", 0), m.z_loss = c.number("router_z_loss_coef", 0);
    return m;
}

void read_groups(const ConfigReader& c, MoeConfig& m) {
    RouterOptions& r = m.router;
    r.scale = c.number("routed_scaling_factor", 1);
    r.groups = c.has("n_group") ? c.size("n_group") : 1;
    r.top_groups = c.has("topk_group") ? c.size("topk_group") : 1;
    check(m.experts % r.groups == 0, "config.json: n_routed_experts %ld is not a multiple of n_group %ld",
          m.experts, r.groups);
    check(r.top_groups <= r.groups, "config.json: topk_group %ld is more than n_group %ld", r.top_groups,
          r.groups);
    check(r.top_k <= r.top_groups * (m.experts / r.groups),
          "config.json: num_experts_per_tok %ld is more than the experts of topk_group %ld groups", r.top_k,
          r.top_groups);
    m.shared_F = m.F * c.integer("n_shared_experts", 0);
    check(m.shared_F >= 0, "config.json: \"n_shared_experts\" expects 0 or more");
}

std::vector<bool> dense_first(const ConfigReader& c, int64_t layers) {
    int64_t dense = c.integer("first_k_dense_replace", 0);
    check(dense >= 0 && dense <= layers, "config.json: \"first_k_dense_replace\" expects 0 to %ld, found %ld",
          layers, dense);
    std::vector<bool> sparse(size_t(layers), true);
    std::fill_n(sparse.begin(), dense, false);
    return sparse;
}

} // namespace nvl
