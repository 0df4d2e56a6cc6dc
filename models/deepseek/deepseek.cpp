// DeepSeek-V2, V3, R1 and Kimi K2.            arXiv:2405.04434 (V2), arXiv:2412.19437 (V3), arXiv:2507.20534
// (Kimi K2)
//
// Multi-head latent attention; a mixture of experts with shared experts in all but the first layers. V2
// routes by softmax, V3 by sigmoid with a correction that balances the load without a loss. Weights of the
// multi-token prediction layer (number num_hidden_layers) in a checkpoint are not read.
#include <cmath>

#include "models/blocks/decoder.h"

namespace nvl {

// YaRN's temperature, which these models apply to the scores as well.
static double score_scale(const RopeConfig& rope) {
    if (rope.type == RopeType::standard || rope.mscale_all_dim.value_or(0) == 0) return 1;
    double m = rope.factor > 1 ? 0.1 * *rope.mscale_all_dim * std::log(rope.factor) + 1 : 1;
    return m * m;
}

static MlaConfig read_mla(const ConfigReader& c, const DecoderConfig& d, Pairs pairs) {
    MlaConfig m{.C = d.attention.C,
                .H = d.attention.H,
                .q_rank = c.has("q_lora_rank") ? c.size("q_lora_rank") : 0,
                .kv_rank = c.size("kv_lora_rank"),
                .nope = c.size("qk_nope_head_dim"),
                .rope = c.size("qk_rope_head_dim"),
                .value = c.size("v_head_dim"),
                .bias = c.boolean("attention_bias", false),
                .pairs = pairs,
                .std = d.attention.std,
                .output_std = d.attention.output_std};
    m.scale = score_scale(read_rope(c, m.rope)) / std::sqrt(double(m.nope + m.rope));
    return m;
}

static DecoderConfig read_deepseek(const ConfigReader& c, bool interleaved) {
    DecoderConfig d = read_decoder(c);
    d.mla = read_mla(c, d, interleaved ? Pairs::interleaved : Pairs::half);
    d.rope = rope_table(read_rope(c, d.mla->rope));
    d.attention.D =
        (d.mla->nope + d.mla->rope + d.mla->value) / 2; // of a score and a value: what FLOPs count
    d.moe = read_moe(c, d);
    read_groups(c, *d.moe);
    d.sparse = dense_first(c, int64_t(d.windows.size()));
    return d;
}

static std::unique_ptr<Model> make_v2(const Json& json) {
    ConfigReader c(json);
    DecoderConfig d = read_deepseek(c, true);
    std::string method = c.text("topk_method", "greedy");
    check(method == "greedy" || method == "group_limited_greedy",
          "config.json: topk_method \"%s\" is not known; expected greedy or group_limited_greedy",
          method.c_str());
    if (method == "greedy") d.moe->router.groups = d.moe->router.top_groups = 1;
    return std::make_unique<Decoder>(c, d);
}

static std::unique_ptr<Model> make_v3(const Json& json) {
    ConfigReader c(json);
    DecoderConfig d = read_deepseek(c, c.boolean("rope_interleave", true));
    d.moe->router.score = Score::sigmoid, d.moe->correction = true;
    d.moe->router.renormalise = c.boolean("norm_topk_prob", true);
    return std::make_unique<Decoder>(c, d);
}

static RegisterModel deepseek_v2("deepseek_v2", make_v2);
static RegisterModel deepseek_v3("deepseek_v3", make_v3);
static RegisterModel kimi_k2("kimi_k2", make_v3);

} // namespace nvl
