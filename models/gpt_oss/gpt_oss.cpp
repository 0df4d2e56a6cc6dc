// GPT-OSS.                                                                           OpenAI 2025,
// arXiv:2508.10925
//
// Sinks in every head; windows in every other layer; biases everywhere; experts with a clamped unit, stored
// as (inputs, outputs) with gate and value in alternating columns; the router has a bias.
#include "models/blocks/decoder.h"

namespace nvl {

static RegisterModel gpt_oss("gpt_oss", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c, 2);
    d.attention.qkv_bias = d.attention.output_bias = c.boolean("attention_bias", true);
    d.attention.sinks = true;
    d.moe = read_moe(c, d, "intermediate_size");
    MoeConfig& m = *d.moe;
    m.router.renormalise = true; // of the softmax over all experts: the softmax over the chosen ones
    m.router_bias = m.alternating = true;
    m.alpha = c.number("swiglu_alpha", 1.702), m.limit = c.number("swiglu_limit", 7);
    m.names = {.router = "router",
               .gate = "experts.gate_up_proj",
               .up = "",
               .down = "experts.down_proj",
               .shared = ""};
    d.sparse.assign(d.windows.size(), true);
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
