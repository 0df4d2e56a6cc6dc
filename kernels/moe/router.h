// Which experts a token goes to, and how much each of them counts.
//
//   l = softcap ? softcap tanh(x / softcap) : x
//   s = softmax(l) over all experts, or sigmoid(l)
//   choice     the K experts with the largest s + correction, ties to the lower index; with groups, only the
//              experts of the `top_groups` best groups compete. A group's worth is its largest s under
//              softmax, the sum of its two largest s + correction under sigmoid.
//   weight     scale s[choice], divided by the sum of the chosen s if `renormalise`
//   backward   the choice is a constant. P is the sum of the chosen s, d = scale dweight:
//              ds[c_k] = renormalise ? (d_k - sum_j d_j s_j / P) / P : d_k, then back through the scores
//
// x (T, E)    weight (T, K) f32    choice (T, K) i32
// correction (E), may be empty: a bias that steers the choice only
//
// softmax + renormalise   Mixtral (arXiv:2401.04088), Qwen3-MoE; GPT-OSS, as the softmax over the chosen
// sigmoid + correction    DeepSeek-V3 (arXiv:2412.19437), GLM-4.5, Kimi K2
// groups                  DeepSeek-V2 (arXiv:2405.04434)
//
// floor  one read of x; the product that made x costs more.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

enum class Score : uint8_t { softmax, sigmoid };

struct RouterOptions {
    int64_t top_k = 1;
    Score score = Score::softmax;
    bool renormalise = false;
    double scale = 1, softcap = 0;
    int64_t groups = 1, top_groups = 1;
};

struct Routing {
    Tensor weight, choice;
};

/// Without a correction any tensor stands in its place and `corrected` is false.
extern Kernel<void(Out weight, Out choice, In x, In correction, RouterOptions o, bool corrected)>
    route_forward;
extern Kernel<void(Acc dx, In dweight, In x, In choice, RouterOptions o)> route_backward;

Routing route(Tensor x, const RouterOptions& options, Tensor correction = {});

} // namespace nvl
