// Attention for generation: keys and values live in a paged cache that many sequences share.
//
//   kv_append        cache[slots[t]] = x[t]
//   attention_paged  as attention, with the keys of a sequence gathered through its page table
//
// cache (rows, G, D), rows a multiple of PAGE; x (T, G, D); slots (T) i32. kv_append returns the handle to
// read the cache by from then on.
// q (T, H, D), k_cache (rows, G, D), v_cache (rows, G, Dv), y (T, H, Dv); page_table (N, pages) i32;
// query_starts (N + 1 or more) i32; context_lengths (N) i32. Sequence n has context_lengths[n] tokens; key j
// lies in row page_table[n][j / PAGE] * PAGE + j % PAGE. Its queries are rows [query_starts[n],
// query_starts[n + 1]) of q and belong to its last tokens: one when decoding, a chunk or all when prefilling.
// sinks as in training. On the CPU a row of y has the bits that training attention gives it (attention.h).
// With T and N as capacities the true numbers count; query_starts[N] is the number of rows of q. floor decode
// reads 2 G D elements per token of context once: memory bound. FLOPs and bytes are counted
//        for full page tables, since a plan knows no lengths.
#pragma once
#include "kernels/attention/attention.h"

namespace nvl {

constexpr int64_t PAGE = 64; // rows of a page

extern Kernel<void(InOut cache, In x, In slots)> kv_append_forward;
extern Kernel<void(Out y, In q, In k_cache, In v_cache, In page_table, In query_starts, In context_lengths,
                   In sinks, AttentionOptions o, bool sunk)>
    attention_paged_forward;

Tensor kv_append(Tensor cache, Tensor x, Tensor slots);
Tensor attention_paged(Tensor q, Tensor k_cache, Tensor v_cache, Tensor page_table, Tensor query_starts,
                       Tensor context_lengths, AttentionOptions o = {}, Tensor sinks = {});

} // namespace nvl
