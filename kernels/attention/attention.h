// Attention over packed sequences, with grouped key/value heads.
//
//   forward    s = scale q k^T    z = softcap ? softcap tanh(s / softcap) : s    p = softmax(z + mask)    y =
//   p v
//              lse = log sum exp(z + mask)
//   sinks      one more logit per head in the sum, without a value: p = exp(z - lse) with
//              lse = log(exp(sink) + sum exp(z + mask)); dsink = -sum over rows of exp(sink - lse) delta
//   backward   delta = rowsum(dy * y)    p = exp(z - lse)    dz = p * (dy v^T - delta)
//              ds = dz * (1 - (z / softcap)^2)    dq = scale ds k    dk = scale ds^T q    dv = p^T dy
//
// q (T, H, D)    k (T, G, D)    v (T, G, Dv)    y (T, H, Dv)    lse (T, H) f32, kept for backward
// sinks (H), or the empty tensor for none. D and Dv may differ.
// Head h reads key/value head h / (H / G). sequence_starts (N + 1) i32: sequence n is rows [starts[n],
// starts[n + 1]); the first entry is 0, the last is the number of rows; empty sequences are allowed. A token
// sees keys of its own sequence only: j <= i if causal, and j > i - window (j < i + window if not causal) if
// there is a window.
//
// Method: online softmax over blocks of 64 keys at fixed places of the sequence (Milakov & Gimelshein 2018,
// arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135); the backward recomputes p from lse. No T x T matrix.
// floor  forward 2(D + Dv) and backward 6 D + 4 Dv FLOP per head and visible pair; compute bound beyond a
//        few hundred keys.
//
// The bits of a row of y depend on its q, its keys and values and its position alone: not on other rows, on
// threads, or on the way keys are stored. Training, prefill in chunks and decode agree bit for bit:
//   1. A score is a chain of fused multiply-adds over d of (scale log2(e) q) and k, from 0.
//   2. Key j belongs to block j / 64. The p of a block are summed in 16 lanes (key % 16, in order), then a
//      tree 8, 4, 2, 1 lanes apart; p v is a chain over the keys of the block that goes on from alpha y.
//   3. alpha = 2^(old max - new max) per block; blocks go in order within a segment of 1024 keys, each
//      segment starts afresh, segments are merged in order. Masked keys and blocks change no bit.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

struct AttentionOptions {
    bool causal = true;
    int64_t window = 0; // 0: none
    double scale = 0;   // 0: 1 / sqrt(D)
    double softcap = 0; // 0: none
    /// For counting FLOPs, which a plan must know before there is data: sequences are taken to have this
    /// length. 0: all rows are one sequence.
    int64_t length = 0;
};

// Without sinks any tensor stands in their place and `sunk` is false.
extern Kernel<void(Out y, Out lse, In q, In k, In v, In sequence_starts, In sinks, AttentionOptions o,
                   bool sunk)>
    attention_forward;
extern Kernel<void(Acc dq, Acc dk, Acc dv, AccSum dsinks, In dy, In y, In lse, In q, In k, In v,
                   In sequence_starts, In sinks, AttentionOptions o, bool sunk)>
    attention_backward;

Tensor attention(Tensor q, Tensor k, Tensor v, Tensor sequence_starts, AttentionOptions o = {},
                 Tensor sinks = {});

/// Query-key pairs that see each other in `rows` tokens cut into sequences of `o.length`.
double attention_pairs(int64_t rows, const AttentionOptions& o);

} // namespace nvl
