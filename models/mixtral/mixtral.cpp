// Mixtral: llama with a mixture of experts in every layer.                     Jiang et al. 2024,
// arXiv:2401.04088
#include "models/blocks/decoder.h"

namespace nvl {

static RegisterModel mixtral("mixtral", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c);
    d.moe = read_moe(c, d, "intermediate_size");
    d.moe->router.renormalise = true;
    d.moe->names = {.router = "gate",
                    .gate = "experts.*.w1.weight",
                    .up = "experts.*.w3.weight",
                    .down = "experts.*.w2.weight",
                    .shared = ""};
    d.moe_prefix = "block_sparse_moe.";
    d.sparse.assign(d.windows.size(), true);
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
