// OLMo 2 and 3.                                        OLMo team 2025, arXiv:2501.00656; arXiv:2512.13961
//
// Norms come after the blocks, not before; q and k are normed over all heads of a token together. OLMo 3 has
// windows in three layers of four, and stretches the rotary frequencies of its full layers only.
#include "models/blocks/decoder.h"

namespace nvl {

static DecoderConfig read_olmo(const ConfigReader& c, int64_t full_every) {
    DecoderConfig d = read_decoder(c, full_every);
    d.norms = Norms::after;
    d.attention.qk_norm = QkNorm::whole;
    d.attention.qkv_bias = d.attention.output_bias = c.boolean("attention_bias", false);
    return d;
}

static RegisterModel olmo2("olmo2", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    return std::make_unique<Decoder>(c, read_olmo(c, 0));
});

static RegisterModel olmo3("olmo3", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_olmo(c, 4);
    RopeConfig of_windows = read_rope(c, d.attention.D, "sliding_attention");
    if (!c.has("rope_parameters"))
        of_windows.type = RopeType::standard; // rope_scaling is for the full layers
    d.rope_of_windows = rope_table(of_windows);
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
