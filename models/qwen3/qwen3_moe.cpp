// Qwen3 with a mixture of experts in place of the MLP.                    Qwen3 technical report,
// arXiv:2505.09388
#include <algorithm>

#include "models/blocks/decoder.h"

namespace nvl {

// A layer is a mixture where (l + 1) is a multiple of decoder_sparse_step and it is not in mlp_only_layers.
static std::vector<bool> sparse_layers(const ConfigReader& c, int64_t layers) {
    int64_t step = c.has("decoder_sparse_step") ? c.size("decoder_sparse_step") : 1;
    const Json dense = c.has("mlp_only_layers") ? c.json()["mlp_only_layers"] : Json::array();
    check(dense.is_array(), "config.json: \"mlp_only_layers\" expects a list of layers");
    std::vector<bool> sparse;
    for (int64_t l = 0; l < layers; l++)
        sparse.push_back((l + 1) % step == 0 &&
                         std::find(dense.begin(), dense.end(), Json(l)) == dense.end());
    return sparse;
}

static RegisterModel qwen3_moe("qwen3_moe", [](const Json& json) -> std::unique_ptr<Model> {
    ConfigReader c(json);
    DecoderConfig d = read_decoder(c);
    d.attention.qk_norm = QkNorm::heads;
    d.attention.qkv_bias = d.attention.output_bias = c.boolean("attention_bias", false);
    d.moe = read_moe(c, d);
    d.moe->router.renormalise = c.boolean("norm_topk_prob", false);
    d.sparse = sparse_layers(c, int64_t(d.windows.size()));
    return std::make_unique<Decoder>(c, d);
});

} // namespace nvl
