#include "models/blocks/mlp.h"

#include "kernels/linear/linear.h"
#include "kernels/pointwise/gated.h"

namespace nvl {

void MlpWeights::each(const MlpConfig& c, const std::string& prefix, const Visit& visit) {
    auto matrix = [&](const char* name, Tensor& weight, Tensor& bias, int64_t out, int64_t in, double std) {
        visit({prefix + name + ".weight", {out, in}, Role::matrix, 0, std}, weight);
        if (c.bias) visit({prefix + name + ".bias", {out}, Role::vector, 0, 0}, bias);
    };
    matrix("gate_proj", gate, gate_bias, c.F, c.C, c.std);
    matrix("up_proj", up, up_bias, c.F, c.C, c.std);
    matrix("down_proj", down, down_bias, c.C, c.F, c.output_std);
}

Tensor mlp_block(Tensor h, const MlpWeights& w, const MlpConfig& c) {
    Module here("mlp");
    Tensor gate = linear(h, w.gate, w.gate_bias),
           up = linear(h, w.up, w.up_bias); // one by one: the order is recorded
    return linear(gated(c.activation, gate, up), w.down, w.down_bias);
}

} // namespace nvl
