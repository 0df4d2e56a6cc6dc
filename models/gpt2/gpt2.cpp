// GPT-2.                                Radford et al. 2019, "Language Models are Unsupervised Multitask
// Learners"
//
//   x = wte[token] + wpe[position]
//   x = x + c_proj attention(c_attn layernorm(x));   x = x + c_proj gelu(c_fc layernorm(x))
//
// Learned positions, LayerNorm, biases everywhere, q|k|v in one matrix. Weights are stored (in, out), as
// Conv1D.
#include <cmath>

#include "kernels/embed/embedding_add_positions.h"
#include "kernels/linear/linear.h"
#include "kernels/norm/add_layernorm.h"
#include "kernels/norm/layernorm.h"
#include "kernels/pointwise/activation.h"
#include "kernels/pointwise/add.h"
#include "models/blocks/attend.h"
#include "models/blocks/config.h"
#include "models/model.h"

namespace nvl {

// Conv1D: y = x w + b with w (in, out)
static Tensor project(Tensor x, Tensor w, Tensor b) { return linear(x, transpose(w, 0, 1), b); }

class Gpt2 : public Model {
public:
    explicit Gpt2(const ConfigReader& c)
        : eps_(c.number("layer_norm_epsilon", 1e-5)), std_(c.number("initializer_range", 0.02)),
          activation_(activation_named(c.text("activation_function", "gelu_new"))),
          tied_(c.boolean("tie_word_embeddings", true)), scaled_(c.boolean("scale_attn_weights", true)),
          by_layer_(c.boolean("scale_attn_by_inverse_layer_idx", false)) {
        int64_t C = c.size("n_embd"), H = c.size("n_head"), L = c.size("n_layer", 100000);
        check(C % H == 0, "config.json: n_embd %ld is not a multiple of n_head %ld", C, H);
        check(!c.boolean("add_cross_attention", false), "config.json: add_cross_attention is not supported");
        int64_t F = c.has("n_inner") ? c.size("n_inner") : 4 * C;
        dims = {L,
                C,
                H,
                H,
                C / H,
                F,
                c.size("vocab_size"),
                c.size("n_positions"),
                std::vector<int64_t>(size_t(L), 0)};
        layers_.resize(size_t(L));
    }

    void each(const Visit& visit) override {
        int64_t C = dims.C, F = dims.F;
        double out = std_ / std::sqrt(2.0 * double(dims.layers));
        visit({"transformer.wte.weight", {dims.V, C}, Role::embedding, 0, std_}, wte_);
        visit({"transformer.wpe.weight", {dims.context, C}, Role::embedding, 0, std_}, wpe_);
        for (int64_t l = 0; l < dims.layers; l++) {
            Layer& w = layers_[size_t(l)];
            std::string p = "transformer.h." + std::to_string(l) + ".";
            auto norm = [&](const char* name, Tensor& weight, Tensor& bias) {
                visit({p + name + ".weight", {C}, Role::vector, 1, 0}, weight);
                visit({p + name + ".bias", {C}, Role::vector, 0, 0}, bias);
            };
            auto matrix = [&](const char* name, Tensor& weight, Tensor& bias, int64_t in, int64_t n,
                              double std) {
                visit({p + name + ".weight", {in, n}, Role::matrix, 0, std}, weight);
                visit({p + name + ".bias", {n}, Role::vector, 0, 0}, bias);
            };
            norm("ln_1", w.norm1, w.norm1_bias);
            matrix("attn.c_attn", w.qkv, w.qkv_bias, C, 3 * C, std_);
            matrix("attn.c_proj", w.o, w.o_bias, C, C, out);
            norm("ln_2", w.norm2, w.norm2_bias);
            matrix("mlp.c_fc", w.up, w.up_bias, C, F, std_);
            matrix("mlp.c_proj", w.down, w.down_bias, F, C, out);
        }
        visit({"transformer.ln_f.weight", {C}, Role::vector, 1, 0}, norm_);
        visit({"transformer.ln_f.bias", {C}, Role::vector, 0, 0}, norm_bias_);
        if (!tied_) visit({"lm_head.weight", {dims.V, C}, Role::head, 0, std_}, head_);
    }

    Tensor block(Tensor x, const Batch& batch, int64_t layer) const {
        const Layer& w = layers_[size_t(layer)];
        Dim T = x.dim(0);
        int64_t H = dims.H;
        double scale =
            (scaled_ ? 1 / std::sqrt(double(dims.D)) : 1.0) / (by_layer_ ? double(layer + 1) : 1.0);
        Tensor h = layernorm(x, w.norm1, w.norm1_bias, eps_);
        Tensor qkv = reshape(project(h, w.qkv, w.qkv_bias), {T, 3 * H, dims.D});
        Tensor q = slice(qkv, 1, 0, H), k = slice(qkv, 1, H, 2 * H), v = slice(qkv, 1, 2 * H, 3 * H);
        Tensor a = reshape(attend(q, k, v, batch, layer, {.scale = scale}), {T, dims.C});
        auto [sum, m] = add_layernorm(x, project(a, w.o, w.o_bias), w.norm2, w.norm2_bias, eps_);
        Tensor up = activation(activation_, project(m, w.up, w.up_bias));
        return add(sum, project(up, w.down, w.down_bias));
    }

    Tensor hidden(const Batch& batch) override {
        Tensor x = embedding_add_positions(wte_, batch.tokens, wpe_, batch.positions);
        for (int64_t l = 0; l < dims.layers; l++) x = run_block(x, this, batch, l);
        return layernorm(x, norm_, norm_bias_, eps_);
    }
    Tensor head() const override { return tied_ ? wte_ : head_; }

private:
    struct Layer {
        Tensor norm1, norm1_bias, qkv, qkv_bias, o, o_bias, norm2, norm2_bias, up, up_bias, down, down_bias;
    };
    double eps_, std_;
    Activation activation_;
    bool tied_, scaled_, by_layer_;
    Tensor wte_, wpe_, norm_, norm_bias_, head_;
    std::vector<Layer> layers_;
};

static RegisterModel gpt2("gpt2", [](const Json& json) -> std::unique_ptr<Model> {
    return std::make_unique<Gpt2>(ConfigReader(json));
});

} // namespace nvl
