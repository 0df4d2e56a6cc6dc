// BERT's encoder.                                                   Devlin et al. 2018, arXiv:1810.04805
//
//   x = layernorm(word[token] + place[position] + type[token type])
//   x = layernorm(x + Wo attention(x));     x = layernorm(x + W2 gelu(W1 x))        in both directions
//
// Norms after the blocks, biases everywhere. Sequences are packed, so there is no padding and no mask.
#pragma once
#include "kernels/pointwise/activation.h"
#include "models/blocks/config.h"
#include "models/model.h"

namespace nvl {

class Bert : public Model {
public:
    explicit Bert(const ConfigReader& c);
    void each(const Visit& visit) override;
    /// token_types (T) i32 -> the last hidden states (T, C).
    Tensor encode(const Batch& batch, Tensor token_types);
    Tensor hidden(const Batch& batch) override;
    Tensor head() const override;
    Tensor block(Tensor x, const Batch& batch, int64_t layer) const;

private:
    struct Layer {
        Tensor q, q_bias, k, k_bias, v, v_bias, o, o_bias, norm1, norm1_bias;
        Tensor up, up_bias, down, down_bias, norm2, norm2_bias;
    };
    double eps_, std_;
    int64_t types_;
    Activation activation_;
    Tensor word_, place_, type_, norm_, norm_bias_, pooler_, pooler_bias_;
    std::vector<Layer> layers_;
};

} // namespace nvl
