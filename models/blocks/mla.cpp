#include "models/blocks/mla.h"

#include "kernels/attention/paged.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/per_head_linear.h"
#include "kernels/norm/rmsnorm.h"
#include "kernels/pointwise/concat_heads.h"

namespace nvl {

void MlaWeights::each(const MlaConfig& c, const std::string& prefix, const Visit& visit) {
    auto matrix = [&](const char* name, Tensor& t, int64_t out, int64_t in, double std) {
        visit({prefix + name + ".weight", {out, in}, Role::matrix, 0, std}, t);
    };
    auto vector = [&](const char* name, Tensor& t, int64_t n, double mean) {
        visit({prefix + name, {n}, Role::vector, mean}, t);
    };
    if (c.q_rank) {
        matrix("q_a_proj", q_a, c.q_rank, c.C, c.std);
        if (c.bias) vector("q_a_proj.bias", q_a_bias, c.q_rank, 0);
        vector("q_a_layernorm.weight", q_norm, c.q_rank, 1);
        matrix("q_b_proj", q_b, c.H * (c.nope + c.rope), c.q_rank, c.std);
    } else
        matrix("q_proj", q, c.H * (c.nope + c.rope), c.C, c.std);
    matrix("kv_a_proj_with_mqa", kv_a, c.kv_rank + c.rope, c.C, c.std);
    if (c.bias) vector("kv_a_proj_with_mqa.bias", kv_a_bias, c.kv_rank + c.rope, 0);
    vector("kv_a_layernorm.weight", kv_norm, c.kv_rank, 1);
    matrix("kv_b_proj", kv_b, c.H * (c.nope + c.value), c.kv_rank, c.std);
    matrix("o_proj", o, c.C, c.H * c.value, c.output_std);
    if (c.bias) vector("o_proj.bias", o_bias, c.C, 0);
}

namespace {
struct Query {
    Tensor nope, rope;
};
} // namespace

static Query query(Tensor h, const MlaWeights& w, const MlaConfig& c, const Batch& batch) {
    Tensor q =
        c.q_rank ? linear(rmsnorm(linear(h, w.q_a, w.q_a_bias), w.q_norm, c.eps), w.q_b) : linear(h, w.q);
    q = reshape(q, {h.dim(0), c.H, c.nope + c.rope});
    return {slice(q, -1, 0, c.nope), rope(slice(q, -1, c.nope, c.nope + c.rope), batch.angles, c.pairs)};
}

static Tensor expanded(const Query& q, Tensor latent, Tensor k_rope, const MlaWeights& w, const MlaConfig& c,
                       const Batch& batch) {
    int64_t width = c.nope + c.value;
    Tensor kv = reshape(linear(latent, w.kv_b), {latent.dim(0), c.H, width});
    Tensor k = concat_heads(slice(kv, -1, 0, c.nope), k_rope), v = slice(kv, -1, c.nope, width);
    return attention(concat_heads(q.nope, q.rope), k, v, batch.sequence_starts,
                     {.scale = c.scale, .length = batch.row_length});
}

static Tensor absorbed(const Query& q, Tensor latent, Tensor k_rope, const MlaWeights& w, const MlaConfig& c,
                       Cache& cache, int64_t layer) {
    Tensor& keys =
        cache.k.at(size_t(layer)); // (rows, 1, kv_rank + rope); the values are its first kv_rank columns
    Tensor token = concat_heads(reshape(latent, {latent.dim(0), 1, c.kv_rank}), k_rope);
    keys = kv_append(keys, token, cache.slots);
    Tensor kv_b = reshape(w.kv_b, {c.H, c.nope + c.value, c.kv_rank});
    Tensor q_latent = per_head_linear(q.nope, slice(kv_b, 1, 0, c.nope), Weights::in_out);
    Tensor y =
        attention_paged(concat_heads(q_latent, q.rope), keys, slice(keys, -1, 0, c.kv_rank), cache.page_table,
                        cache.query_starts, cache.context_lengths, {.scale = c.scale});
    return per_head_linear(y, slice(kv_b, 1, c.nope, c.nope + c.value));
}

Tensor mla_block(Tensor h, const MlaWeights& w, const MlaConfig& c, const Batch& batch, int64_t layer) {
    Module here("attn");
    Dim T = h.dim(0);
    Query q = query(h, w, c, batch);
    Tensor kv = linear(h, w.kv_a, w.kv_a_bias);
    Tensor latent = rmsnorm(slice(kv, -1, 0, c.kv_rank), w.kv_norm, c.eps);
    Tensor k_rope = reshape(slice(kv, -1, c.kv_rank, c.kv_rank + c.rope), {T, 1, c.rope});
    k_rope = rope(k_rope, batch.angles, c.pairs);
    Tensor y = batch.cache ? absorbed(q, latent, k_rope, w, c, *batch.cache, layer)
                           : expanded(q, latent, k_rope, w, c, batch);
    return linear(reshape(y, {T, c.H * c.value}), w.o, w.o_bias);
}

} // namespace nvl
