// SmolLM3: llama, but every fourth layer has no rotary positions (NoPE).          Yang et al. 2025,
// arXiv:2501.18795
#include "models/blocks/decoder.h"

namespace nvl {

static RegisterModel smollm3("smollm3", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c);
    auto layers = d.windows.size();
    if (!c.boolean("use_sliding_window", false)) d.windows.assign(layers, 0);
    d.attention.qkv_bias = d.attention.output_bias = c.boolean("attention_bias", false);
    d.mlp.bias = c.boolean("mlp_bias", false);
    d.tied = c.boolean("tie_word_embeddings", true);
    d.unrotated.assign(layers, false);
    if (!c.has("no_rope_layers")) {
        int64_t every = c.has("no_rope_layer_interval") ? c.size("no_rope_layer_interval") : 4;
        for (size_t l = 0; l < layers; l++) d.unrotated[l] = (int64_t(l) + 1) % every == 0;
        return std::make_unique<Decoder>(c, d);
    }
    const Json& rotated = json["no_rope_layers"]; // in spite of its name: 1 where the layer is rotated
    check(rotated.is_array() && rotated.size() == layers,
          "config.json: \"no_rope_layers\" expects %zu entries of 0 or 1", layers);
    for (size_t l = 0; l < layers; l++) {
        check(rotated[l] == 0 || rotated[l] == 1,
              "config.json: \"no_rope_layers\" expects entries of 0 or 1");
        d.unrotated[l] = rotated[l] == 0;
    }
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
