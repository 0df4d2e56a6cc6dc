// What keeps the experts of a mixture in use.
//
//   routing_sums    sums[e] = sum_t softmax(x_t)[e]    counts[e] = how often e was chosen (no gradient)
//                   backward   dx_te = p_te (dsums_e - sum_j p_tj dsums_j)
//   balance_loss    loss = E sum_e (counts_e / rows) (sums_e / rows)
//                   rows = sum(sums), the rows pooled over layers, a constant; top_k if the load is even
//                   backward   dsums_e = dloss E counts_e / rows^2
//   router_z_loss   loss = mean_t (log sum exp x_t)^2
//                   backward   dx_te = dloss 2 lse_t p_te / T
//
// x (T, E) router logits    choice (T, K) i32    sums, counts (E) f32    loss (1) f32
// Switch Transformers, arXiv:2101.03961 (balance); ST-MoE, arXiv:2202.08906 (z)
//
// floor  one read of x.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

struct RoutingSums {
    Tensor sums, counts;
};

extern Kernel<void(Out sums, Out counts, In x, In choice)> routing_sums_forward;
extern Kernel<void(Acc dx, In dsums, In x)> routing_sums_backward;
extern Kernel<void(Out loss, In sums, In counts)> balance_loss_forward;
extern Kernel<void(Acc dsums, In dloss, In sums, In counts)> balance_loss_backward;
extern Kernel<void(Out loss, In x)> router_z_forward;
extern Kernel<void(Acc dx, In dloss, In x)> router_z_backward;

RoutingSums routing_sums(Tensor x, Tensor choice);
/// Of one layer's sums, or of those of several layers added up.
Tensor balance_loss(Tensor sums, Tensor counts);
Tensor router_z_loss(Tensor x);

} // namespace nvl
