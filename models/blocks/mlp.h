// Gated feed-forward: down(act(gate h) * (up h)).                                   Shazeer 2020,
// arXiv:2002.05202
#pragma once
#include "kernels/pointwise/activation.h"
#include "models/model.h"

namespace nvl {

struct MlpConfig {
    int64_t C, F;
    bool bias = false;
    Activation activation = Activation::silu;
    double std = 0.02, output_std = 0.02;
};

struct MlpWeights {
    Tensor gate, up, down, gate_bias, up_bias, down_bias;
    void each(const MlpConfig& c, const std::string& prefix, const Visit& visit);
};

Tensor mlp_block(Tensor h, const MlpWeights& w, const MlpConfig& c);

} // namespace nvl
