// Grouped-query attention with rotary positions, as llama, qwen2 and qwen3 have it.
//
//   q, k, v = Wq h + bq, Wk h + bk, Wv h + bv      per head: q, k = rope(norm(q)), rope(norm(k))
//   out     = Wo attention(q, k, v) + bo            biases and norms where the family has them
#pragma once
#include "models/blocks/attend.h"
#include "models/model.h"

namespace nvl {

struct AttentionConfig {
    int64_t C, H, G, D;
    bool qkv_bias = false, output_bias = false, qk_norm = false;
    double eps = 1e-6, scale = 0, std = 0.02, output_std = 0.02; // scale 0: 1 / sqrt(D)
};

struct AttentionWeights {
    Tensor q, k, v, o, q_bias, k_bias, v_bias, o_bias, q_norm, k_norm;
    void each(const AttentionConfig& c, const std::string& prefix, const Visit& visit);
};

/// h (T, C) normed input -> (T, C). `window` 0: full. The layer picks the cache of an inference batch.
Tensor attention_block(Tensor h, const AttentionWeights& w, const AttentionConfig& c, const Batch& batch,
                       int64_t layer, int64_t window);

} // namespace nvl
