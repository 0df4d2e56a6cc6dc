// The decoder that llama and its relatives are, up to what their configs say.
//
//   before   x = x + attention(norm(x));         x = x + mlp(norm(x))            llama, qwen, smollm3
//   after    x = x + norm(attention(x));         x = x + norm(mlp(x))            olmo 2 and 3
//   both     x = x + norm(attention(norm(x)));   x = x + norm(mlp(norm(x)))      gemma 2 and 3
//   hidden = norm(x)                             norm: rmsnorm with a weight of its own
//
// A family fills DecoderConfig from its config.json; its folder says in what it differs.
#pragma once
#include <optional>

#include "kernels/position/rope.h"
#include "models/blocks/attention.h"
#include "models/blocks/config.h"
#include "models/blocks/mlp.h"

namespace nvl {

enum class Norms : uint8_t { before, after, both };

struct DecoderConfig {
    AttentionConfig attention;
    MlpConfig mlp;
    bool tied = true;
    Norms norms = Norms::before;
    double embedding_scale = 1;
    std::vector<int64_t> windows;             // per layer; 0: full attention
    RopeTable rope;                           // of every layer, but:
    std::optional<RopeTable> rope_of_windows; // of layers with a window, where they differ
    std::vector<bool> unrotated;              // layers without rotary positions; empty: none
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
        Tensor attention_in, attention_out, mlp_in, mlp_out; // norms before and after each block
        AttentionWeights attention;
        MlpWeights mlp;
    };
    Tensor norm(Tensor x, const Tensor& weight) const;
    DecoderConfig config_;
    Tensor embed_, norm_, head_;
    std::vector<Layer> layers_;
};

/// Rotary settings from rope_parameters (new) or rope_theta + rope_scaling (old); of one type of layer, where
/// rope_parameters tells them apart.
RopeConfig read_rope(const ConfigReader& c, int64_t head_dim, const char* layer_type = nullptr);

/// What the families read alike: sizes, eps, windows, rope, activation, initialisation. `full_every`: see
/// read_windows.
DecoderConfig read_decoder(const ConfigReader& c, int64_t full_every = 0);

} // namespace nvl
