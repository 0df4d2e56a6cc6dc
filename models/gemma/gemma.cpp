// Gemma 2 and 3, text.                                  Gemma team 2024, arXiv:2408.00118; 2025,
// arXiv:2503.19786
//
// Norms before and after each block, with factor 1 + w; embeddings times sqrt(C); scores scaled by
// query_pre_attn_scalar^-1/2. Gemma 2 caps the scores and the logits and alternates windows with full layers;
// Gemma 3 norms q and k, and has one full layer in six, whose rotary positions are slower.
#include "models/blocks/decoder.h"

namespace nvl {

static DecoderConfig read_gemma(const ConfigReader& c, int64_t full_every) {
    DecoderConfig d = read_decoder(c, full_every);
    AttentionConfig& a = d.attention;
    d.norms = Norms::both;
    a.norm_offset = 1;
    a.qkv_bias = a.output_bias = c.boolean("attention_bias", false);
    double scalar = c.number("query_pre_attn_scalar", 256);
    check(scalar > 0, "config.json: \"query_pre_attn_scalar\" expects a positive number, found %g", scalar);
    a.scale = 1 / std::sqrt(scalar);
    d.embedding_scale = std::sqrt(double(a.C));
    d.tied = c.boolean("tie_word_embeddings", true);
    return d;
}

static std::unique_ptr<Model> make_gemma(const ConfigReader& c, const DecoderConfig& d) {
    auto model = std::make_unique<Decoder>(c, d);
    model->logit_softcap = c.number("final_logit_softcapping", 0);
    return model;
}

static RegisterModel gemma2("gemma2", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_gemma(c, 2);
    d.attention.softcap = c.number("attn_logit_softcapping", 0);
    return make_gemma(c, d);
});

static RegisterModel gemma3("gemma3_text", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_gemma(c, c.integer("sliding_window_pattern", 6));
    d.attention.qk_norm = QkNorm::heads;
    RopeConfig of_windows = read_rope(c, d.attention.D, "sliding_attention");
    if (!c.has("rope_parameters")) { // rope_theta and rope_scaling are those of the full layers
        of_windows.type = RopeType::standard;
        of_windows.theta = c.number("rope_local_base_freq", 1e4);
    }
    d.rope_of_windows = rope_table(of_windows);
    return make_gemma(c, d);
});

} // namespace nvl
