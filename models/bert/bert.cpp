#include "models/bert/bert.h"

#include "kernels/embed/embedding.h"
#include "kernels/embed/embedding_add_positions.h"
#include "kernels/linear/linear.h"
#include "kernels/norm/add_layernorm.h"
#include "models/blocks/attend.h"

namespace nvl {

Bert::Bert(const ConfigReader& c)
    : eps_(c.number("layer_norm_eps", 1e-12)), std_(c.number("initializer_range", 0.02)),
      types_(c.size("type_vocab_size")), activation_(activation_named(c.text("hidden_act", "gelu"))) {
    int64_t C = c.size("hidden_size"), H = c.size("num_attention_heads"),
            L = c.size("num_hidden_layers", 100000);
    check(C % H == 0, "config.json: hidden_size %ld is not a multiple of num_attention_heads %ld", C, H);
    check(!c.boolean("is_decoder", false) && !c.boolean("add_cross_attention", false),
          "config.json: BERT as a decoder is not supported");
    std::string positions = c.text("position_embedding_type", "absolute");
    check(positions == "absolute", "config.json: position_embedding_type '%s' is not supported",
          positions.c_str());
    if (c.has("architectures")) {
        const Json& list = c.json()["architectures"];
        check(
            list.is_array() && list.size() == 1 && list[0] == "BertModel",
            "config.json: of BERT this build reads the plain encoder, architectures [\"BertModel\"], without "
            "a head for masked words or classes");
    }
    int64_t F = c.size("intermediate_size"), V = c.size("vocab_size"), S = c.size("max_position_embeddings");
    dims = {L, C, H, H, C / H, F, V, S, std::vector<int64_t>(size_t(L), 0)};
    layers_.resize(size_t(L));
}

void Bert::each(const Visit& visit) {
    int64_t C = dims.C, F = dims.F;
    auto norm = [&](const std::string& name, Tensor& weight, Tensor& bias) {
        visit({name + ".weight", {C}, Role::vector, 1, 0}, weight);
        visit({name + ".bias", {C}, Role::vector, 0, 0}, bias);
    };
    auto matrix = [&](const std::string& name, Tensor& weight, Tensor& bias, int64_t n, int64_t in) {
        visit({name + ".weight", {n, in}, Role::matrix, 0, std_}, weight);
        visit({name + ".bias", {n}, Role::vector, 0, 0}, bias);
    };
    visit({"embeddings.word_embeddings.weight", {dims.V, C}, Role::embedding, 0, std_}, word_);
    visit({"embeddings.position_embeddings.weight", {dims.context, C}, Role::embedding, 0, std_}, place_);
    visit({"embeddings.token_type_embeddings.weight", {types_, C}, Role::embedding, 0, std_}, type_);
    norm("embeddings.LayerNorm", norm_, norm_bias_);
    for (int64_t l = 0; l < dims.layers; l++) {
        Layer& w = layers_[size_t(l)];
        std::string p = "encoder.layer." + std::to_string(l) + ".";
        matrix(p + "attention.self.query", w.q, w.q_bias, C, C);
        matrix(p + "attention.self.key", w.k, w.k_bias, C, C);
        matrix(p + "attention.self.value", w.v, w.v_bias, C, C);
        matrix(p + "attention.output.dense", w.o, w.o_bias, C, C);
        norm(p + "attention.output.LayerNorm", w.norm1, w.norm1_bias);
        matrix(p + "intermediate.dense", w.up, w.up_bias, F, C);
        matrix(p + "output.dense", w.down, w.down_bias, C, F);
        norm(p + "output.LayerNorm", w.norm2, w.norm2_bias);
    }
    matrix("pooler.dense", pooler_, pooler_bias_, C, C);
}

Tensor Bert::block(Tensor x, const Batch& batch, int64_t layer) const {
    const Layer& w = layers_[size_t(layer)];
    Dim T = x.dim(0);
    auto heads = [&](const Tensor& weight, const Tensor& bias) {
        return reshape(linear(x, weight, bias), {T, dims.H, dims.D});
    };
    Tensor q = heads(w.q, w.q_bias), k = heads(w.k, w.k_bias), v = heads(w.v, w.v_bias);
    Tensor a = reshape(attend(q, k, v, batch, layer, {.causal = false}), {T, dims.C});
    Tensor h = add_layernorm(x, linear(a, w.o, w.o_bias), w.norm1, w.norm1_bias, eps_).y;
    Tensor up = activation(activation_, linear(h, w.up, w.up_bias));
    return add_layernorm(h, linear(up, w.down, w.down_bias), w.norm2, w.norm2_bias, eps_).y;
}

Tensor Bert::encode(const Batch& batch, Tensor token_types) {
    Tensor x = embedding_add_positions(word_, batch.tokens, place_, batch.positions);
    x = add_layernorm(x, embedding(type_, token_types), norm_, norm_bias_, eps_).y;
    for (int64_t l = 0; l < dims.layers; l++) x = run_block(x, this, batch, l);
    return x;
}

Tensor Bert::hidden(const Batch&) {
    fail(
        "bert is an encoder: it has no next token to learn or to generate; `embed` turns texts into vectors");
}
Tensor Bert::head() const { fail("bert is an encoder without a head"); }

static RegisterModel bert("bert", [](const Json& json) -> std::unique_ptr<Model> {
    return std::make_unique<Bert>(ConfigReader(json));
});

} // namespace nvl
