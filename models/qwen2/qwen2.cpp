// Qwen2 and Qwen2.5.                                                      Yang et al. 2024, arXiv:2407.10671
//
// Always a bias on q, k and v, never on o. Sliding windows only with `use_sliding_window`, from
// `max_window_layers` on.
#include "models/blocks/decoder.h"

namespace nvl {

static RegisterModel qwen2("qwen2", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c);
    d.attention.qkv_bias = true;
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
