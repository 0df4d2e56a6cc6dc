// Qwen3, dense.                                                           Qwen3 technical report,
// arXiv:2505.09388
//
// RMSNorm over each head of q and k (one weight of D, shared by the heads) before the rotation; head_dim is
// explicit.
#include "models/blocks/decoder.h"

namespace nvl {

static RegisterModel qwen3("qwen3", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c);
    d.attention.qk_norm = QkNorm::heads;
    d.attention.qkv_bias = d.attention.output_bias = c.boolean("attention_bias", false);
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
