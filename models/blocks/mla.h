// Multi-head latent attention.                                                     DeepSeek-V2,
// arXiv:2405.04434
//
//   q = Wq h, or Wqb norm(Wqa h)          per head [nope | rope]
//   [c | k_rope] = Wkva h                 c = norm(c): the latent of all heads; k_rope (1, dr) is shared by
//   them [k_nope | v] = Wkvb c                 per head out = Wo attention([q_nope | rope(q_rope)], [k_nope |
//   rope(k_rope)], v)
//
// The cache keeps c and the rotated k_rope, kv_rank + dr numbers a token. With it the products by Wkvb are
// absorbed: q_nope Wkvb_k meets c itself, and Wkvb_v is applied to the weighted sum of c. The same numbers up
// to rounding.
#pragma once
#include "kernels/position/rope.h"
#include "models/blocks/attend.h"
#include "models/model.h"

namespace nvl {

struct MlaConfig {
    int64_t C, H, q_rank, kv_rank, nope, rope, value; // q_rank 0: q is projected in one step
    bool bias = false;                                // on the two down projections and the output
    Pairs pairs = Pairs::interleaved;
    double scale = 0, eps = 1e-6; // eps of the norms of the latents
    double std = 0.02, output_std = 0.02;
};

struct MlaWeights {
    Tensor q, q_a, q_a_bias, q_norm, q_b, kv_a, kv_a_bias, kv_norm, kv_b, o, o_bias;
    void each(const MlaConfig& c, const std::string& prefix, const Visit& visit);
};

/// h (T, C) normed input -> (T, C). The batch has the angles of the `rope` rotated elements.
Tensor mla_block(Tensor h, const MlaWeights& w, const MlaConfig& c, const Batch& batch, int64_t layer);

} // namespace nvl
