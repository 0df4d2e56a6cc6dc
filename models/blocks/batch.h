// What a model reads: packed tokens with their positions, where sequences begin, and for inference a paged
// cache.
#pragma once
#include <vector>

#include "engine/tensor/tensor.h"

namespace nvl {

/// Keys and values of one inference program. Rows of k[l], v[l] (rows, G, D) belong to pages of PAGE tokens.
struct Cache {
    std::vector<Tensor> k, v; // per layer; replaced by the handle that the append returned
    Tensor slots;             // (T) i32: the cache row of each new token
    Tensor page_table;        // (N, max_pages) i32
    Tensor query_starts;      // (N + 1) i32: rows of sequence n are [starts[n], starts[n + 1])
    Tensor context_lengths;   // (N) i32: tokens of sequence n including the new ones
};

/// There is no batch dimension: sequences are packed one after the other in T rows.
struct Batch {
    Tensor tokens;          // (T) i32
    Tensor positions;       // (T) i32, counted from 0 in each sequence
    Tensor sequence_starts; // (N + 1) i32, for training; repeated totals are empty sequences
    Cache* cache = nullptr; // for inference
    Tensor angles;          // of rotary positions: the model computes them once for all layers
    int64_t row_length = 0; // for counting FLOPs before there is data: the usual length of a sequence; 0: T
};

} // namespace nvl
