#include "models/blocks/attention.h"

#include "kernels/linear/linear.h"
#include "kernels/position/qknorm_rope.h"
#include "kernels/position/rope.h"

namespace nvl {

void AttentionWeights::each(const AttentionConfig& c, const std::string& prefix, const Visit& visit) {
    auto matrix = [&](const char* name, Tensor& t, int64_t out, int64_t in, double std) {
        visit({prefix + name + ".weight", {out, in}, Role::matrix, 0, std}, t);
    };
    auto vector = [&](const std::string& name, Tensor& t, int64_t n, double mean) {
        visit({prefix + name, {n}, Role::vector, mean, 0}, t);
    };
    matrix("q_proj", q, c.H * c.D, c.C, c.std);
    if (c.qkv_bias) vector("q_proj.bias", q_bias, c.H * c.D, 0);
    matrix("k_proj", k, c.G * c.D, c.C, c.std);
    if (c.qkv_bias) vector("k_proj.bias", k_bias, c.G * c.D, 0);
    matrix("v_proj", v, c.G * c.D, c.C, c.std);
    if (c.qkv_bias) vector("v_proj.bias", v_bias, c.G * c.D, 0);
    matrix("o_proj", o, c.C, c.H * c.D, c.output_std);
    if (c.output_bias) vector("o_proj.bias", o_bias, c.C, 0);
    if (c.qk_norm) vector("q_norm.weight", q_norm, c.D, 1), vector("k_norm.weight", k_norm, c.D, 1);
}

Tensor attention_block(Tensor h, const AttentionWeights& w, const AttentionConfig& c, const Batch& batch,
                       int64_t layer, int64_t window) {
    Module here("attn");
    Dim T = h.dim(0);
    Tensor q = reshape(linear(h, w.q, w.q_bias), {T, c.H, c.D});
    Tensor k = reshape(linear(h, w.k, w.k_bias), {T, c.G, c.D});
    Tensor v = reshape(linear(h, w.v, w.v_bias), {T, c.G, c.D});
    q = c.qk_norm ? qknorm_rope(q, w.q_norm, batch.angles, c.eps) : rope(q, batch.angles);
    k = c.qk_norm ? qknorm_rope(k, w.k_norm, batch.angles, c.eps) : rope(k, batch.angles);
    Tensor y = attend(q, k, v, batch, layer, {.window = window, .scale = c.scale});
    return linear(reshape(y, {T, c.H * c.D}), w.o, w.o_bias);
}

} // namespace nvl
