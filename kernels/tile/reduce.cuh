// Reductions over a warp and a block. The tree is fixed (lanes 16, 8, 4, 2, 1 apart, then warps in order), so
// equal inputs give equal bits, and every thread gets the result.
#pragma once
#include <cstdint>

namespace nvl {

constexpr int WARP = 32;

struct Sum {
    template <class A> __device__ __forceinline__ A operator()(A a, A b) const { return a + b; }
};
struct Max {
    template <class A> __device__ __forceinline__ A operator()(A a, A b) const { return a > b ? a : b; }
};

/// Over each group of WIDTH neighbouring lanes (a power of 2).
template <int WIDTH = WARP, class A, class F> __device__ __forceinline__ A warp_reduce(A v, F combine) {
#pragma unroll
    for (int apart = WIDTH / 2; apart; apart /= 2) v = combine(v, __shfl_xor_sync(0xffffffffu, v, apart));
    return v;
}
template <int WIDTH = WARP, class A> __device__ __forceinline__ A warp_sum(A v) {
    return warp_reduce<WIDTH>(v, Sum{});
}
template <int WIDTH = WARP, class A> __device__ __forceinline__ A warp_max(A v) {
    return warp_reduce<WIDTH>(v, Max{});
}

/// Over all THREADS of a one-dimensional block. `scratch` holds THREADS / 32 values in shared memory and may
/// be used again after the call. Contains two __syncthreads.
template <int THREADS, class A, class F>
__device__ __forceinline__ A block_reduce(A v, A* scratch, F combine) {
    static_assert(THREADS % WARP == 0);
    constexpr int WARPS = THREADS / WARP;
    v = warp_reduce(v, combine);
    if constexpr (WARPS > 1) {
        if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = v;
        __syncthreads();
        v = scratch[0];
#pragma unroll
        for (int w = 1; w < WARPS; w++) v = combine(v, scratch[w]);
        __syncthreads();
    }
    return v;
}
template <int THREADS, class A> __device__ __forceinline__ A block_sum(A v, A* scratch) {
    return block_reduce<THREADS>(v, scratch, Sum{});
}
template <int THREADS, class A> __device__ __forceinline__ A block_max(A v, A* scratch) {
    return block_reduce<THREADS>(v, scratch, Max{});
}

/// The sum over the threads before this one; `all` gets the sum over all. Exact for integers; `scratch` as in
/// block_reduce. Contains two __syncthreads.
template <int THREADS, class A> __device__ __forceinline__ A block_sum_before(A v, A* scratch, A& all) {
    constexpr int WARPS = THREADS / WARP;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    A sum = v; // of the lanes up to this one
#pragma unroll
    for (int apart = 1; apart < WARP; apart *= 2) {
        A other = __shfl_up_sync(0xffffffffu, sum, apart);
        if (lane >= apart) sum += other;
    }
    if (lane == WARP - 1) scratch[warp] = sum;
    __syncthreads();
    A before = 0;
    all = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        if (w == warp) before = all;
        all += scratch[w];
    }
    __syncthreads();
    return before + sum - v;
}

} // namespace nvl
