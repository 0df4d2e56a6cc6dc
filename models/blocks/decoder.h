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
#include "models/blocks/mla.h"
#include "models/blocks/mlp.h"
#include "models/blocks/moe.h"

namespace nvl {

enum class Norms : uint8_t { before, after, both };

struct DecoderConfig {
    AttentionConfig attention;
    MlpConfig mlp;
    bool tied = true;
    Norms norms = Norms::before;
    std::optional<MlaConfig> mla; // latent attention in place of grouped-query attention
    std::optional<MoeConfig> moe; // a mixture of experts in place of the MLP, in
    std::vector<bool> sparse;     // these layers
    std::string moe_prefix = "mlp.";
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
    CacheShape cache_shape() const override;
    Tensor head() const override { return config_.tied ? embed_ : head_; }
    /// x after the layer; of a mixture of experts also its routing sums and counts, and its z-loss.
    std::vector<Tensor> block(Tensor x, const Batch& batch, int64_t layer) const;

private:
    struct Layer {
        Tensor attention_in, attention_out, mlp_in, mlp_out; // norms before and after each block
        AttentionWeights attention;
        MlaWeights mla;
        MlpWeights mlp;
        MoeWeights moe;
    };
    bool sparse(int64_t layer) const { return config_.moe && config_.sparse[size_t(layer)]; }
    void collect_losses(const std::vector<std::vector<Tensor>>& mixtures);
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

/// Sizes, top_k and loss coefficients of a mixture of experts. `expert_size` is the key of F.
MoeConfig read_moe(const ConfigReader& c, const DecoderConfig& d,
                   const char* expert_size = "moe_intermediate_size");
/// What DeepSeek and its relatives add: groups of experts, a factor, shared experts.
void read_groups(const ConfigReader& c, MoeConfig& m);
/// Which layers are mixtures: all but the first `first_k_dense_replace`.
std::vector<bool> dense_first(const ConfigReader& c, int64_t layers);

} // namespace nvl
