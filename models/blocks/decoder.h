// The pre-norm decoder that llama, qwen2 and qwen3 are, up to what their configs say.
//
//   x = x + attention(rmsnorm(x));   x = x + mlp(rmsnorm(x));   hidden = rmsnorm(x)
//
// A family fills DecoderConfig from its config.json; its folder says in what it differs.
#pragma once
#include "kernels/position/rope.h"
#include "models/blocks/attention.h"
#include "models/blocks/config.h"
#include "models/blocks/mlp.h"

namespace nvl {

struct DecoderConfig {
    AttentionConfig attention;
    MlpConfig mlp;
    bool tied = true;
    RopeTable rope;
};

class Decoder : public Model {
public:
    Decoder(const ConfigReader& c, DecoderConfig config);
    void each(const Visit& visit) override;
    Tensor hidden(const Batch& batch) override;
    Tensor head() const override { return config_.tied ? embed_ : head_; }
    Tensor block(Tensor x, const Batch& batch, int64_t layer) const;

private:
    struct Layer {
        Tensor norm1, norm2;
        AttentionWeights attention;
        MlpWeights mlp;
    };
    DecoderConfig config_;
    Tensor embed_, norm_, head_;
    std::vector<Layer> layers_;
};

/// Rotary settings from rope_parameters (new) or rope_theta + rope_scaling (old).
RopeConfig read_rope(const ConfigReader& c, int64_t head_dim);

/// What the three families read alike: sizes, eps, rope, activation, initialisation.
DecoderConfig read_decoder(const ConfigReader& c);

} // namespace nvl
