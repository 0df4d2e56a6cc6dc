// GLM-4.5.                                                                      GLM-4.5 team 2025,
// arXiv:2508.06471
//
// Half of each head is rotated; q and k may be normed; DeepSeek-V3's router with a shared expert, after the
// first dense layers.
#include "models/blocks/decoder.h"

namespace nvl {

static RegisterModel glm4_moe("glm4_moe", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c);
    d.attention.qkv_bias = c.boolean("attention_bias", false);
    if (c.boolean("use_qk_norm", false)) d.attention.qk_norm = QkNorm::heads;
    d.moe = read_moe(c, d);
    read_groups(c, *d.moe);
    d.moe->router.score = Score::sigmoid, d.moe->correction = true;
    d.moe->router.renormalise = c.boolean("norm_topk_prob", true);
    d.sparse = dense_first(c, int64_t(d.windows.size()));
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
