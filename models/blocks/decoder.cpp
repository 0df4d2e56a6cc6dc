#include "models/blocks/decoder.h"

#include <cmath>

#include "kernels/embed/embedding.h"
#include "kernels/norm/add_rmsnorm.h"
#include "kernels/norm/rmsnorm.h"
#include "kernels/pointwise/add.h"

namespace nvl {

DecoderConfig read_decoder(const ConfigReader& c) {
    DecoderConfig d;
    AttentionConfig& a = d.attention;
    a.C = c.size("hidden_size"), a.H = c.size("num_attention_heads");
    a.G = c.has("num_key_value_heads") ? c.size("num_key_value_heads") : a.H;
    check(a.H % a.G == 0, "config.json: num_attention_heads %ld is not a multiple of num_key_value_heads %ld",
          a.H, a.G);
    if (c.has("head_dim"))
        a.D = c.size("head_dim");
    else {
        check(a.C % a.H == 0, "config.json: hidden_size %ld is not a multiple of num_attention_heads %ld",
              a.C, a.H);
        a.D = a.C / a.H;
    }
    a.eps = c.number("rms_norm_eps", 1e-6);
    d.rope = rope_table(read_rope(c, a.D));
    a.std = d.mlp.std = c.number("initializer_range", 0.02);
    // Outputs that add to the residual stream start smaller, so that its variance does not grow with depth
    // (GPT-2).
    a.output_std = d.mlp.output_std = a.std / std::sqrt(2.0 * double(c.size("num_hidden_layers")));
    d.mlp.C = a.C, d.mlp.F = c.size("intermediate_size");
    d.mlp.activation = activation_named(c.text("hidden_act", "silu"));
    d.tied = c.boolean("tie_word_embeddings", false);
    return d;
}

Decoder::Decoder(const ConfigReader& c, DecoderConfig config) : config_(std::move(config)) {
    const AttentionConfig& a = config_.attention;
    int64_t layers = c.size("num_hidden_layers", 100000);
    dims = {layers,
            a.C,
            a.H,
            a.G,
            a.D,
            config_.mlp.F,
            c.size("vocab_size"),
            c.integer("max_position_embeddings", 2048),
            {}};
    dims.window = read_windows(c, layers);
    layers_.resize(size_t(layers));
}

void Decoder::each(const Visit& visit) {
    const AttentionConfig& a = config_.attention;
    visit({"model.embed_tokens.weight", {dims.V, dims.C}, Role::embedding, 0, a.std}, embed_);
    for (int64_t l = 0; l < dims.layers; l++) {
        Layer& w = layers_[size_t(l)];
        std::string prefix = "model.layers." + std::to_string(l) + ".";
        visit({prefix + "input_layernorm.weight", {dims.C}, Role::vector, 1, 0}, w.norm1);
        w.attention.each(a, prefix + "self_attn.", visit);
        visit({prefix + "post_attention_layernorm.weight", {dims.C}, Role::vector, 1, 0}, w.norm2);
        w.mlp.each(config_.mlp, prefix + "mlp.", visit);
    }
    visit({"model.norm.weight", {dims.C}, Role::vector, 1, 0}, norm_);
    if (!config_.tied) visit({"lm_head.weight", {dims.V, dims.C}, Role::head, 0, a.std}, head_);
}

Tensor Decoder::block(Tensor x, const Batch& batch, int64_t layer) const {
    const Layer& w = layers_[size_t(layer)];
    double eps = config_.attention.eps;
    Tensor a = attention_block(rmsnorm(x, w.norm1, eps), w.attention, config_.attention, batch, layer,
                               dims.window[size_t(layer)]);
    auto [sum, h] = add_rmsnorm(x, a, w.norm2, eps); // sum = x + a, h = rmsnorm(sum)
    return add(sum, mlp_block(h, w.mlp, config_.mlp));
}

Tensor Decoder::hidden(const Batch& batch) {
    Batch with_angles = batch;
    with_angles.angles = rope_angles(batch.positions, config_.rope);
    Tensor x = embedding(embed_, batch.tokens);
    for (int64_t l = 0; l < dims.layers; l++) x = run_block(x, this, with_angles, l);
    return rmsnorm(x, norm_, config_.attention.eps);
}

} // namespace nvl
