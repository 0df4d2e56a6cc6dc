// Cross-entropy of given logits: classification, small vocabularies, and the reference of
// linear_cross_entropy (which never holds all logits and is what a language model wants).
//
//   forward    lse_t = log(sum_v exp(l_tv))      token_t = lse_t - l_t[label_t]      loss = sum_t token_t
//   backward   dl_tv = (g_t + dlse_t) * exp(l_tv - lse_t) - g_t [v = label_t]        g_t = dloss + dtoken_t
//
// logits (T, V)    labels (T) i32, negative = ignored: no loss, no gradient
// loss (1), token (T, 1), lse (T, 1) in f32 (f64 of f64); token and lse of an ignored row are 0.
// The mean over the valid tokens is a matter of the seed: dloss = 1 / valid.
// floor  forward reads the logits once, backward reads and writes them.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

struct CrossEntropy {
    Tensor loss, token, lse;
};

extern Kernel<void(Out loss, Out token, Out lse, In logits, In labels)> cross_entropy_forward;
extern Kernel<void(Acc dlogits, In dloss, In dtoken, In dlse, In logits, In labels, In lse)>
    cross_entropy_backward;

CrossEntropy cross_entropy(Tensor logits, Tensor labels);

} // namespace nvl
