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
        if (config_.mla)
            w.mla.each(*config_.mla, prefix + "self_attn.", visit);
        else
            w.attention.each(a, prefix + "self_attn.", visit);
        // The same name is the norm before the MLP in llama's files, and after attention in the others.
        norm(prefix + "post_attention_layernorm", after ? w.attention_out : w.mlp_in);
        if (before && after) norm(prefix + "pre_feedforward_layernorm", w.mlp_in);
        if (sparse(l))
            w.moe.each(*config_.moe, prefix + config_.moe_prefix, visit);
        else
            w.mlp.each(config_.mlp, prefix + "mlp.", visit);
        if (after) norm(prefix + "post_feedforward_layernorm", w.mlp_out);
    }
    norm("model.norm", norm_);
    if (!config_.tied) visit({"lm_head.weight", {dims.V, dims.C}, Role::head, 0, a.std}, head_);
}

CacheShape Decoder::cache_shape() const {
    if (!config_.mla) return Model::cache_shape();
    return {.heads = 1, .key = config_.mla->kv_rank + config_.mla->rope, .value = 0};
}

Tensor Decoder::norm(Tensor x, const Tensor& weight) const {
    return weight ? rmsnorm(x, weight, config_.attention.eps, config_.attention.norm_offset) : x;
}

std::vector<Tensor> Decoder::block(Tensor x, const Batch& batch, int64_t layer) const {
    const Layer& w = layers_[size_t(layer)];
    const AttentionConfig& c = config_.attention;
    Tensor h = norm(x, w.attention_in);
    Tensor a = config_.mla ? mla_block(h, w.mla, *config_.mla, batch, layer)
                           : attention_block(h, w.attention, c, batch, layer, dims.window[size_t(layer)]);
    a = norm(a, w.attention_out);
    Tensor sum;
    if (w.mlp_in) {
        AddNorm both = add_rmsnorm(x, a, w.mlp_in, c.eps, c.norm_offset); // sum = x + a, h = norm(sum)
        sum = both.sum, h = both.y;
    } else
        sum = h = add(x, a);
    if (!sparse(layer)) return {add(sum, norm(mlp_block(h, w.mlp, config_.mlp), w.mlp_out))};
    MoeOutput m = moe_block(h, w.moe, *config_.moe);
    return {add(sum, norm(m.y, w.mlp_out)), m.sums, m.counts, m.z_loss};
}

Tensor Decoder::hidden(const Batch& batch) {
    Tensor full = rope_angles(batch.positions, config_.rope);
    Tensor windowed = config_.rope_of_windows ? rope_angles(batch.positions, *config_.rope_of_windows) : full;
    Tensor x = embedding(embed_, batch.tokens);
    double c = config_.embedding_scale; // the checkpoints were trained with it rounded to the compute type
    if (c != 1) x = scale(x, x.dtype() == Dtype::bf16 ? double(float(bf16(float(c)))) : c);
    std::vector<std::vector<Tensor>> mixtures;
    for (int64_t l = 0; l < dims.layers; l++) {
        auto i = size_t(l);
        Batch rotated = batch;
        if (config_.unrotated.empty() || !config_.unrotated[i])
            rotated.angles = dims.window[i] ? windowed : full;
        std::vector<Tensor> outputs = run_block(x, this, rotated, l);
        x = outputs[0];
        if (sparse(l)) mixtures.push_back(std::move(outputs));
    }
    collect_losses(mixtures);
    return norm(x, norm_);
}

void Decoder::collect_losses(const std::vector<std::vector<Tensor>>& mixtures) {
    auxiliary.clear(), expert_counts.clear();
    if (mixtures.empty()) return;
    Tensor sums, counts, z;
    auto total = [](Tensor& to, const Tensor& x) { to = !to ? x : !x ? to : add(to, x); };
    for (const std::vector<Tensor>& m : mixtures) {
        expert_counts.push_back(m[2]);
        total(sums, m[1]), total(counts, m[2]), total(z, m[3]);
    }
    const MoeConfig& c = *config_.moe;
    if (c.balance) auxiliary.push_back({"balance", balance_loss(sums, counts), c.balance});
    if (c.z_loss) auxiliary.push_back({"router z", z, c.z_loss / double(mixtures.size())});
}

} // namespace nvl
