// Llama 1-3 and SmolLM2: the plain decoder.                            Touvron et al. 2023, arXiv:2302.13971
//
// `attention_bias` puts a bias on q, k, v and o; `mlp_bias` on all three of the MLP; head_dim may differ from
// C / H.
#include "models/blocks/decoder.h"

namespace nvl {

static RegisterModel llama("llama", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c);
    d.attention.qkv_bias = d.attention.output_bias = c.boolean("attention_bias", false);
    d.mlp.bias = c.boolean("mlp_bias", false);
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
