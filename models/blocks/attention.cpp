#include "models/blocks/attention.h"

#include "kernels/linear/linear.h"
#include "kernels/norm/rmsnorm.h"
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
    if (c.sinks) vector("sinks", sinks, c.H, 0);
    if (c.qk_norm == QkNorm::none) return;
    bool heads = c.qk_norm == QkNorm::heads;
    vector("q_norm.weight", q_norm, heads ? c.D : c.H * c.D, 1 - c.norm_offset);
    vector("k_norm.weight", k_norm, heads ? c.D : c.G * c.D, 1 - c.norm_offset);
}

// x (T, heads * D) as projected -> (T, heads, D), normed and rotated as the config asks.
static Tensor positioned(Tensor x, Tensor norm, int64_t heads, const AttentionConfig& c, Tensor angles) {
    if (c.qk_norm == QkNorm::whole) x = rmsnorm(x, norm, c.eps, c.norm_offset);
    x = reshape(x, {x.dim(0), heads, c.D});
    bool each_head = c.qk_norm == QkNorm::heads;
    if (!angles) return each_head ? rmsnorm(x, norm, c.eps, c.norm_offset) : x;
    return each_head ? qknorm_rope(x, norm, angles, c.eps, c.norm_offset) : rope(x, angles);
}

Tensor attention_block(Tensor h, const AttentionWeights& w, const AttentionConfig& c, const Batch& batch,
                       int64_t layer, int64_t window) {
    Module here("attn");
    Dim T = h.dim(0);
    Tensor q = linear(h, w.q, w.q_bias), k = linear(h, w.k, w.k_bias), v = linear(h, w.v, w.v_bias);
    q = positioned(q, w.q_norm, c.H, c, batch.angles);
    k = positioned(k, w.k_norm, c.G, c, batch.angles);
    Tensor y = attend(q, k, reshape(v, {T, c.G, c.D}), batch, layer,
                      {.window = window, .scale = c.scale, .softcap = c.softcap}, w.sinks);
    return linear(reshape(y, {T, c.H * c.D}), w.o, w.o_bias);
}

} // namespace nvl
