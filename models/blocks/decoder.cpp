#include "models/blocks/decoder.h"

#include <cmath>

#include "kernels/embed/embedding.h"
#include "kernels/norm/add_rmsnorm.h"
#include "kernels/norm/rmsnorm.h"
#include "kernels/pointwise/add.h"
#include "kernels/pointwise/scale.h"

namespace nvl {

DecoderConfig read_decoder(const ConfigReader& c, int64_t full_every) {
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
    int64_t layers = c.size("num_hidden_layers", 100000);
    d.windows = read_windows(c, layers, full_every);
    d.rope = rope_table(read_rope(c, a.D, "full_attention"));
    a.std = d.mlp.std = c.number("initializer_range", 0.02);
    // Outputs that add to the residual stream start smaller, so that its variance does not grow with depth
    // (GPT-2).
    a.output_std = d.mlp.output_std = a.std / std::sqrt(2.0 * double(layers));
    d.mlp.C = a.C, d.mlp.F = c.size("intermediate_size");
    d.mlp.activation = activation_named(c.text("hidden_activation", c.text("hidden_act", "silu")));
    d.tied = c.boolean("tie_word_embeddings", false);
    return d;
}

Decoder::Decoder(const ConfigReader& c, DecoderConfig config) : config_(std::move(config)) {
    const AttentionConfig& a = config_.attention;
    dims = {.layers = int64_t(config_.windows.size()),
            .C = a.C,
            .H = a.H,
            .G = a.G,
            .D = a.D,
            .F = config_.mlp.F,
            .V = c.size("vocab_size"),
            .context = c.integer("max_position_embeddings", 2048),
            .window = config_.windows};
    layers_.resize(config_.windows.size());
}

void Decoder::each(const Visit& visit) {
    const AttentionConfig& a = config_.attention;
    auto norm = [&](const std::string& name, Tensor& t) {
        visit({name + ".weight", {dims.C}, Role::vector, 1 - a.norm_offset, 0}, t);
    };
    visit({"model.embed_tokens.weight", {dims.V, dims.C}, Role::embedding, 0, a.std}, embed_);
    for (int64_t l = 0; l < dims.layers; l++) {
        Layer& w = layers_[size_t(l)];
        std::string prefix = "model.layers." + std::to_string(l) + ".";
        bool before = config_.norms != Norms::after, after = config_.norms != Norms::before;
        if (before) norm(prefix + "input_layernorm", w.attention_in);
        w.attention.each(a, prefix + "self_attn.", visit);
        // The same name is the norm before the MLP in llama's files, and after attention in the others.
        norm(prefix + "post_attention_layernorm", after ? w.attention_out : w.mlp_in);
        if (before && after) norm(prefix + "pre_feedforward_layernorm", w.mlp_in);
        w.mlp.each(config_.mlp, prefix + "mlp.", visit);
        if (after) norm(prefix + "post_feedforward_layernorm", w.mlp_out);
    }
    norm("model.norm", norm_);
    if (!config_.tied) visit({"lm_head.weight", {dims.V, dims.C}, Role::head, 0, a.std}, head_);
}

Tensor Decoder::norm(Tensor x, const Tensor& weight) const {
    return weight ? rmsnorm(x, weight, config_.attention.eps, config_.attention.norm_offset) : x;
}

Tensor Decoder::block(Tensor x, const Batch& batch, int64_t layer) const {
    const Layer& w = layers_[size_t(layer)];
    const AttentionConfig& c = config_.attention;
    Tensor a =
        attention_block(norm(x, w.attention_in), w.attention, c, batch, layer, dims.window[size_t(layer)]);
    a = norm(a, w.attention_out);
    Tensor sum, h;
    if (w.mlp_in) {
        AddNorm both = add_rmsnorm(x, a, w.mlp_in, c.eps, c.norm_offset); // sum = x + a, h = norm(sum)
        sum = both.sum, h = both.y;
    } else
        sum = h = add(x, a);
    return add(sum, norm(mlp_block(h, w.mlp, config_.mlp), w.mlp_out));
}

Tensor Decoder::hidden(const Batch& batch) {
    Tensor full = rope_angles(batch.positions, config_.rope);
    Tensor windowed = config_.rope_of_windows ? rope_angles(batch.positions, *config_.rope_of_windows) : full;
    Tensor x = embedding(embed_, batch.tokens);
    double c = config_.embedding_scale; // the checkpoints were trained with it rounded to the compute type
    if (c != 1) x = scale(x, x.dtype() == Dtype::bf16 ? double(float(bf16(float(c)))) : c);
    for (int64_t l = 0; l < dims.layers; l++) {
        auto i = size_t(l);
        Batch rotated = batch;
        if (config_.unrotated.empty() || !config_.unrotated[i])
            rotated.angles = dims.window[i] ? windowed : full;
        x = run_block(x, this, rotated, l);
    }
    return norm(x, norm_);
}

} // namespace nvl
