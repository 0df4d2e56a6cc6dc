// Grouped-query attention with rotary positions, as llama and its many relatives have it.
//
//   q, k, v = Wq h + bq, Wk h + bk, Wv h + bv      q, k = rope(norm(q)), rope(norm(k))
//   out     = Wo attention(q, k, v) + bo            biases and norms where the family has them
#pragma once
#include "models/blocks/attend.h"
#include "models/model.h"

namespace nvl {

/// RMSNorm of q and k before the rotation: of each head, or of all heads of a token together.
enum class QkNorm : uint8_t { none, heads, whole };

struct AttentionConfig {
    int64_t C, H, G, D;
    bool qkv_bias = false, output_bias = false;
    QkNorm qk_norm = QkNorm::none;
    double eps = 1e-6, norm_offset = 0; // norm_offset 1: the norms' factor is 1 + w
    bool sinks = false;                 // a learned logit per head that takes attention from the keys
    double scale = 0, softcap = 0;      // scale 0: 1 / sqrt(D); softcap 0: none
    double std = 0.02, output_std = 0.02;
};

struct AttentionWeights {
    Tensor q, k, v, o, q_bias, k_bias, v_bias, o_bias, q_norm, k_norm, sinks;
    void each(const AttentionConfig& c, const std::string& prefix, const Visit& visit);
};

/// h (T, C) normed input -> (T, C). `window` 0: full. The layer picks the cache of an inference batch; a
/// batch without angles is not rotated.
Tensor attention_block(Tensor h, const AttentionWeights& w, const AttentionConfig& c, const Batch& batch,
                       int64_t layer, int64_t window);

} // namespace nvl
