// Tokens in the order of their ids: a stable radix sort of up to 10 bits a pass (two passes for a million
// ids), and where the tokens of each id are. Counts use integer atomics, which have no order to depend on.
//
// Each pass: blocks of 2048 tokens count their digits; one block turns the counts, digit by digit, into where
// each block's tokens of a digit go; blocks move their tokens there, warp by warp and in order.
#pragma once
#include <algorithm>
#include <bit>

#include "engine/device/cuda.h"
#include "kernels/embed/ids.cuh"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

struct SortedIds {
    int *ids, *tokens; // T each
    int2* runs;        // of each id: its tokens are [x, y) of the sorted ones
};

constexpr int SORT_THREADS = 256, SORT_WARPS = SORT_THREADS / WARP, SORT_PER_WARP = 256;
constexpr int SORT_TOKENS = SORT_WARPS * SORT_PER_WARP, SORT_BITS = 10, SORT_BINS = 1 << SORT_BITS;

/// Tokens and their ids as they come, or as the pass before left them.
struct SortInput {
    Ids raw;
    const int *ids, *tokens; // null in the first pass
    __device__ __forceinline__ int id(int t) const { return ids ? ids[t] : raw(t); }
    __device__ __forceinline__ int token(int t) const { return tokens ? tokens[t] : t; }
};

/// counts[digit, block]
static __global__ void __launch_bounds__(SORT_THREADS)
    count_digits(int* counts, SortInput in, int T, int shift, int bins) {
    __shared__ int count[SORT_BINS];
    for (int d = threadIdx.x; d < bins; d += SORT_THREADS) count[d] = 0;
    __syncthreads();
    const int begin = blockIdx.x * SORT_TOKENS, end = min(T, begin + SORT_TOKENS);
    for (int t = begin + threadIdx.x; t < end; t += SORT_THREADS)
        atomicAdd(&count[in.id(t) >> shift & (bins - 1)], 1);
    __syncthreads();
    for (int d = threadIdx.x; d < bins; d += SORT_THREADS) counts[d * gridDim.x + blockIdx.x] = count[d];
}

/// Each of n counts becomes the sum of those before it.
static __global__ void __launch_bounds__(1024) sums_before(int* counts, int n) {
    __shared__ int warp_sums[WARP];
    int carry = 0;
    for (int begin = 0; begin < n; begin += 1024) {
        const int i = begin + threadIdx.x;
        int all, before = block_sum_before<1024>(i < n ? counts[i] : 0, warp_sums, all);
        if (i < n) counts[i] = carry + before;
        carry += all;
    }
}

static __global__ void __launch_bounds__(SORT_THREADS)
    move_by_digit(int* ids, int* tokens, const int* starts, SortInput in, int T, int shift, int bins) {
    __shared__ int next[SORT_WARPS][SORT_BINS]; // where a warp's next token of a digit goes
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int begin = blockIdx.x * SORT_TOKENS + warp * SORT_PER_WARP, end = min(T, begin + SORT_PER_WARP);
    for (int d = threadIdx.x; d < SORT_WARPS * bins; d += SORT_THREADS) next[d / bins][d % bins] = 0;
    __syncthreads();
    for (int t = begin + lane; t < end; t += WARP) atomicAdd(&next[warp][in.id(t) >> shift & (bins - 1)], 1);
    __syncthreads();
    for (int d = threadIdx.x; d < bins; d += SORT_THREADS) {
        int at = starts[d * gridDim.x + blockIdx.x];
#pragma unroll
        for (int w = 0; w < SORT_WARPS; w++) {
            int count = next[w][d];
            next[w][d] = at, at += count;
        }
    }
    __syncthreads();
    for (int first = begin; first < end; first += WARP) {
        const int t = first + lane;
        const bool inside = t < end;
        const int id = inside ? in.id(t) : 0, digit = inside ? id >> shift & (bins - 1) : -1;
        const unsigned equals = __match_any_sync(0xffffffffu, digit), earlier = equals & ((1u << lane) - 1);
        const int at = inside ? next[warp][digit] + __popc(earlier) : 0;
        __syncwarp();
        if (inside && !earlier) next[warp][digit] = at + __popc(equals);
        __syncwarp();
        if (inside) ids[at] = id, tokens[at] = in.token(t);
    }
}

/// runs of ids that do not occur keep their zeros
static __global__ void __launch_bounds__(SORT_THREADS) find_runs(int2* runs, const int* ids, int T) {
    int k = blockIdx.x * SORT_THREADS + threadIdx.x;
    if (k >= T) return;
    int id = ids[k];
    if (k == 0 || ids[k - 1] != id) runs[id].x = k;
    if (k == T - 1 || ids[k + 1] != id) runs[id].y = k + 1;
}

/// runs | ids, tokens | ids, tokens | counts
inline int64_t sort_workspace(int64_t T, int64_t V) {
    return V * int64_t(sizeof(int2)) + (4 * T + SORT_BINS * ceil_div(T, SORT_TOKENS)) * int64_t(sizeof(int));
}

inline SortedIds sort_ids(const Ids& raw, int64_t T, int64_t V) {
    check(T < 1 << 30 && V < 1 << 30, "embedding_backward: %ld tokens, %ld rows; expected less than 2^30",
          long(T), long(V));
    SortedIds now{}, other{};
    now.runs = reinterpret_cast<int2*>(cuda_workspace(sort_workspace(T, V)));
    now.ids = reinterpret_cast<int*>(now.runs + V), now.tokens = now.ids + T;
    other.ids = now.tokens + T, other.tokens = other.ids + T;
    int* counts = other.tokens + T;
    cuda_check(cudaMemsetAsync(now.runs, 0, size_t(V) * sizeof(int2), cuda_stream()), "embedding_backward");
    if (!T) return now;

    const int bits = std::max(1, int(std::bit_width(uint64_t(V - 1)))),
              passes = int(ceil_div(bits, SORT_BITS)), step = int(ceil_div(bits, passes)), bins = 1 << step;
    const unsigned blocks = unsigned(ceil_div(T, SORT_TOKENS));
    SortInput in{raw};
    for (int pass = 0; pass < passes; pass++) {
        count_digits<<<blocks, SORT_THREADS, 0, cuda_stream()>>>(counts, in, int(T), pass * step, bins);
        check_launch("embedding_backward: counts");
        sums_before<<<1, 1024, 0, cuda_stream()>>>(counts, bins * int(blocks));
        check_launch("embedding_backward: starts");
        move_by_digit<<<blocks, SORT_THREADS, 0, cuda_stream()>>>(now.ids, now.tokens, counts, in, int(T),
                                                                  pass * step, bins);
        check_launch("embedding_backward: sort");
        if (pass + 1 == passes) break;
        in.ids = now.ids, in.tokens = now.tokens;
        std::swap(now.ids, other.ids), std::swap(now.tokens, other.tokens);
    }
    find_runs<<<unsigned(ceil_div(T, SORT_THREADS)), SORT_THREADS, 0, cuda_stream()>>>(now.runs, now.ids,
                                                                                       int(T));
    check_launch("embedding_backward: runs");
    return now;
}

} // namespace nvl
