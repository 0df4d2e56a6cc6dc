// Language-model loss: the head's matrix product and the cross-entropy in chunks of rows, so that tokens x
// vocabulary logits never exist.
//
//   logits = x w^T      l = softcap * tanh(logits / softcap)  (softcap = 0: l = logits)
//   lse_t = log(sum_v exp(l_tv))    token_t = lse_t - l_t[label_t]    loss = sum_t token_t + z_loss * lse_t^2
//   backward   dl_tv = (g_t + dlse_t + 2 z_loss lse_t dloss) exp(l_tv - lse_t) - g_t [v = label_t]
//              g_t = dloss + dtoken_t    dlogits = dl (1 - (l / softcap)^2)    dx = dlogits w    dw =
//              dlogits^T x
//
// x (T, C)    w (V, C): the head, possibly the tied embedding    labels (T) i32, negative = ignored
// loss (1), token (T, 1), lse (T, 1) in f32 (f64 of f64); token and lse of an ignored row are 0.
// The mean over the valid tokens is a matter of the seed: dloss = 1 / valid, in a tensor.
//
// Logits are f32 for f32 and bf16; their gradients are rounded to bf16 for the products. A chunk is a planned
// tensor of (rows, V) f32: 64 MiB, but at least 256 rows, since each chunk reads and writes dw once (27/rows
// of the time in bf16). Its gradients exist for 4096 columns at a time, which stay in the cache for both
// products (one product over all of V took twice as long). A token's bits depend on that token alone.
//
// fuse_backward saves one of four products (recomputing the logits): the loss is then computed by the
// backward pass, where dloss is known and the logits of a chunk become its gradient at once. For a loss which
// nothing but seed() uses: the usual training step. Without gradients it changes nothing.
// floor  6 T V C FLOPs fused, 8 T V C otherwise; forward alone 2 T V C.     cf. arXiv:2411.09009, 2410.10989
#pragma once
#include "kernels/loss/cross_entropy.h"

namespace nvl {

struct LossOptions {
    double softcap = 0, z_loss = 0;
    bool fuse_backward = false;
    int64_t chunk_rows = 0; // 0: as above
};

/// Columns of the vocabulary whose gradients exist at a time: on a CPU they stay in the cache for both
/// products.
constexpr int64_t LOSS_BLOCK_V = 4096;

/// logits (chunk, V) f32, block (chunk, LOSS_BLOCK_V) as x, sums (chunk, C) f32: scratch that the plan
/// places.
extern Kernel<void(Out loss, Out token, Out lse, Out logits, In x, In w, In labels, double softcap,
                   double z_loss)>
    linear_cross_entropy_forward;
extern Kernel<void(Acc dx, AccSum dw, Out logits, Out block, Out sums, In dloss, In dtoken, In dlse, In x,
                   In w, In labels, In lse, double softcap, double z_loss)>
    linear_cross_entropy_backward;
extern Kernel<void(Out loss, Out token, Out lse, Acc dx, AccSum dw, Out logits, Out block, Out sums, In dloss,
                   In x, In w, In labels, double softcap, double z_loss)>
    linear_cross_entropy_fused;

CrossEntropy linear_cross_entropy(Tensor x, Tensor w, Tensor labels, const LossOptions& options = {});

} // namespace nvl
