// The norms on the device: one kernel forward, one backward, for both norms with and without the residual.
//
// A group of threads holds a row in registers, 32 elements each: a warp up to 1024 channels, a block beyond.
// Every input is read once. A thread's elements do not depend on alignment, so neither do the bits.
#pragma once
#include <algorithm>

#include "kernels/norm/norm.cuh"
#include "kernels/tile/columns.cuh"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

constexpr int NORM_ELEMENTS = 32; // of a row per thread
constexpr int64_t MAX_CHANNELS = 512 * NORM_ELEMENTS;

inline void expect_channels(const char* op, int64_t C) {
    if (C > MAX_CHANNELS)
        fail("%s: %ld channels; the CUDA kernel holds a row of up to %ld", op, long(C), long(MAX_CHANNELS));
}

/// The sum over the threads of a row.
template <int GROUP> __device__ __forceinline__ float group_sum(float v, float* scratch) {
    if constexpr (GROUP == WARP)
        return warp_sum(v);
    else
        return block_sum<GROUP>(v, scratch);
}

template <class X> struct NormForward {
    Rows<X> s, y; // s = a + b with a residual
    Rows<float> stats;
    Rows<const X> a, b;
    const X *w, *bias;
    int64_t rows;
    int C;
    float eps, offset;
    bool vector;
};

template <class X, int GROUP, bool LAYER> __global__ void __launch_bounds__(GROUP < 128 ? 128 : GROUP)
    norm_forward(NormForward<X> p) {
    constexpr int N = VEC<X>, K = NORM_ELEMENTS / N, ROWS = GROUP < 128 ? 128 / GROUP : 1;
    __shared__ float scratch[GROUP / WARP];
    const int lane = threadIdx.x % GROUP;
    const int64_t row = int64_t(blockIdx.x) * ROWS + threadIdx.x / GROUP;
    if (row >= p.rows) return;

    Floats<N> v[K];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
        int c = (k * GROUP + lane) * N;
        v[k] = floats(load_part<N>(p.a(row), c, p.C, p.vector));
        if (p.s) {
            Floats<N> b = floats(load_part<N>(p.b(row), c, p.C, p.vector));
#pragma unroll
            for (int i = 0; i < N; i++) v[k][i] += b[i];
            v[k] = rounded<X>(v[k]);
            put_part(p.s(row), c, p.C, v[k], p.vector, false);
        }
#pragma unroll
        for (int i = 0; i < N; i++) sum = LAYER ? sum + v[k][i] : fmaf(v[k][i], v[k][i], sum);
    }
    sum = group_sum<GROUP>(sum, scratch);
    float mean = 0;
    if constexpr (LAYER) {
        mean = sum / float(p.C), sum = 0;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int i = 0; i < N; i++) {
                float d = (k * GROUP + lane) * N + i < p.C ? v[k][i] - mean : 0;
                sum = fmaf(d, d, sum);
            }
        sum = group_sum<GROUP>(sum, scratch);
    }
    const float r = 1 / sqrtf(sum / float(p.C) + p.eps);
    if (lane == 0) {
        float* to = p.stats(row);
        if constexpr (LAYER) to[0] = mean;
        to[LAYER] = r;
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
        int c = (k * GROUP + lane) * N;
        Floats<N> w = floats(load_part<N>(p.w, c, p.C, p.vector));
        if constexpr (LAYER) {
            Floats<N> bias{};
            if (p.bias) bias = floats(load_part<N>(p.bias, c, p.C, p.vector));
#pragma unroll
            for (int i = 0; i < N; i++) v[k][i] = fmaf((v[k][i] - mean) * r, w[i], bias[i]);
        } else
#pragma unroll
            for (int i = 0; i < N; i++) v[k][i] = v[k][i] * r * (p.offset + w[i]);
        put_part(p.y(row), c, p.C, v[k], p.vector, false);
    }
}

template <bool LAYER> void run_norm_forward(const char* op, const View& s, const View& y, const View& stats,
                                            const View& a, const View& b, const View& w, const View& bias,
                                            double eps, double offset) {
    expect_channels(op, y.cols());
    if (y.numel() == 0) return;
    cuda_dispatch(y.dtype, [&]<class X> {
        NormForward<X> p{rows_of<X>(s),
                         rows_of<X>(y),
                         rows_of<float>(stats),
                         rows_of<const X>(a),
                         rows_of<const X>(b),
                         pointer_of<const X>(w),
                         pointer_of<const X>(bias),
                         y.rows(),
                         int(y.cols()),
                         float(eps),
                         float(offset),
                         all_move_by(VEC<X>, s, y, a, b, w, bias)};
        auto launch = [&]<int GROUP>() {
            constexpr int THREADS = GROUP < 128 ? 128 : GROUP;
            unsigned blocks = unsigned(ceil_div(p.rows, THREADS / GROUP));
            norm_forward<X, GROUP, LAYER><<<blocks, THREADS, 0, cuda_stream()>>>(p);
        };
        if (p.C <= 32 * NORM_ELEMENTS)
            launch.template operator()<32>();
        else if (p.C <= 128 * NORM_ELEMENTS)
            launch.template operator()<128>();
        else
            launch.template operator()<512>();
        check_launch(op);
    });
}

template <class X> struct NormBackward {
    Rows<X> da, db; // two gradients of one value, each may be empty
    bool add_a, add_b;
    Rows<const X> ds, dy, x; // ds may be empty
    Rows<const float> stats;
    const X* w;
    float* partials; // (blocks, C or 2 C): sums for dw, then dbias; null: not wanted here
    int64_t rows, rows_per_block;
    int C;
    float offset;
    bool vector;
};

/// Where in shared memory a thread leaves its sum of column (k GROUP + lane) N + i: apart by banks both for
/// lanes that write and for threads that then read neighbouring columns.
template <int GROUP, int N> __device__ __forceinline__ int sum_slot(int k, int lane, int i) {
    return (k * N + i) * (GROUP + WARP / N) + lane;
}

/// Adds what the groups of a block hold, in order, into to[0..C).
template <int GROUP, int GROUPS, int N, int K> __device__ __forceinline__ void
block_column_sums(const Floats<N> (&sums)[K], float* shared, float* to, int C) {
    constexpr int SIZE = NORM_ELEMENTS * (GROUP + WARP / N);
    const int lane = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int i = 0; i < N; i++) shared[group * SIZE + sum_slot<GROUP, N>(k, lane, i)] = sums[k][i];
    __syncthreads();
    for (int c = threadIdx.x; c < C; c += GROUP * GROUPS) {
        int part = c / N, slot = sum_slot<GROUP, N>(part / GROUP, part % GROUP, c % N);
        float sum = 0;
#pragma unroll
        for (int g = 0; g < GROUPS; g++) sum += shared[g * SIZE + slot];
        to[c] = sum;
    }
    __syncthreads();
}

template <class X, int GROUP, int GROUPS, bool WEIGHTS, bool LAYER>
__global__ void __launch_bounds__(GROUP* GROUPS) norm_backward(NormBackward<X> p) {
    constexpr int N = VEC<X>, K = NORM_ELEMENTS / N;
    __shared__ float scratch[GROUP / WARP];
    const int lane = threadIdx.x % GROUP;
    Floats<N> dw[WEIGHTS ? K : 1]{}, dbias[WEIGHTS && LAYER ? K : 1]{};
    Vec<X, N> kept[WEIGHTS ? K : 1]; // a block with many rows keeps the weight, one with one row reads it
    if constexpr (WEIGHTS)
#pragma unroll
        for (int k = 0; k < K; k++) kept[k] = load_part<N>(p.w, (k * GROUP + lane) * N, p.C, p.vector);
    auto weight = [&](int k) {
        if constexpr (WEIGHTS)
            return floats(kept[k]);
        else
            return floats(load_part<N>(p.w, (k * GROUP + lane) * N, p.C, p.vector));
    };

    const int64_t begin = blockIdx.x * p.rows_per_block, end = min(p.rows, begin + p.rows_per_block);
    for (int64_t row = begin + threadIdx.x / GROUP; row < end; row += GROUPS) {
        Vec<X, N> x[K], dy[K];
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = (k * GROUP + lane) * N;
            x[k] = load_part<N>(p.x(row), c, p.C, p.vector);
            dy[k] = load_part<N>(p.dy(row), c, p.C, p.vector);
        }
        const float *stats = p.stats(row), mean = LAYER ? stats[0] : 0, r = stats[LAYER];
        float sum_g = 0, sum_gx = 0; // of g = dy w and g x (LayerNorm: g xhat)
#pragma unroll
        for (int k = 0; k < K; k++) {
            Floats<N> v = floats(x[k]), d = floats(dy[k]), w = weight(k);
#pragma unroll
            for (int i = 0; i < N; i++) {
                float xhat = LAYER ? (v[i] - mean) * r : v[i], g = d[i] * (p.offset + w[i]);
                if constexpr (LAYER) sum_g += g;
                sum_gx = fmaf(g, xhat, sum_gx);
                if constexpr (WEIGHTS) dw[k][i] = fmaf(d[i], LAYER ? xhat : v[i] * r, dw[k][i]);
                if constexpr (WEIGHTS && LAYER) dbias[k][i] += d[i];
            }
        }
        if (!p.da && !p.db) continue;
        sum_gx = group_sum<GROUP>(sum_gx, scratch) / float(p.C);
        if constexpr (LAYER)
            sum_g = group_sum<GROUP>(sum_g, scratch) / float(p.C);
        else
            sum_gx *= r * r;
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = (k * GROUP + lane) * N;
            Floats<N> v = floats(x[k]), d = floats(dy[k]), w = weight(k), residual{};
            if (p.ds) residual = floats(load_part<N>(p.ds(row), c, p.C, p.vector));
#pragma unroll
            for (int i = 0; i < N; i++) {
                float g = d[i] * (p.offset + w[i]), xhat = LAYER ? (v[i] - mean) * r : v[i];
                float inner = fmaf(-xhat, sum_gx, LAYER ? g - sum_g : g);
                v[i] = fmaf(r, inner, residual[i]);
            }
            if (p.da) put_part(p.da(row), c, p.C, v, p.vector, p.add_a);
            if (p.db) put_part(p.db(row), c, p.C, v, p.vector, p.add_b);
        }
    }
    if constexpr (WEIGHTS) {
        __shared__ float shared[GROUPS * NORM_ELEMENTS * (GROUP + WARP / N)];
        if (!p.partials) return;
        float* to = p.partials + int64_t(blockIdx.x) * p.C * (LAYER ? 2 : 1);
        block_column_sums<GROUP, GROUPS>(dw, shared, to, p.C);
        if constexpr (LAYER) block_column_sums<GROUP, GROUPS>(dbias, shared, to + p.C, p.C);
    }
}

/// The sums for weight gradients alone, for rows too wide to keep them in registers: a thread walks down four
/// columns.
template <class X, bool LAYER> __global__ void __launch_bounds__(256) norm_weight_sums(NormBackward<X> p) {
    constexpr int N = 4;
    const int c = int(blockIdx.x * 256 + threadIdx.x) * N;
    if (c >= p.C) return;
    const int64_t begin = blockIdx.y * p.rows_per_block, end = min(p.rows, begin + p.rows_per_block);
    Floats<N> dw{}, dbias{};
#pragma unroll 4
    for (int64_t row = begin; row < end; row++) {
        Floats<N> x = floats(load_part<N>(p.x(row), c, p.C, p.vector)),
                  d = floats(load_part<N>(p.dy(row), c, p.C, p.vector));
        const float *stats = p.stats(row), mean = LAYER ? stats[0] : 0, r = stats[LAYER];
#pragma unroll
        for (int i = 0; i < N; i++) {
            dw[i] = fmaf(d[i], (x[i] - mean) * r, dw[i]);
            dbias[i] += d[i];
        }
    }
    float* to = p.partials + int64_t(blockIdx.y) * p.C * (LAYER ? 2 : 1);
    bool vector = p.C % N == 0;
    put_part(to, c, p.C, dw, vector, false);
    if constexpr (LAYER) put_part(to + p.C, c, p.C, dbias, vector, false);
}

template <class X, bool LAYER> void launch_norm_backward(NormBackward<X> p, const char* op) {
    const bool wide = p.C > 256 * NORM_ELEMENTS;
    const int64_t blocks = norm_blocks(p.rows);
    p.rows_per_block = ceil_div(p.rows, blocks);
    auto launch = [&]<int GROUP, int GROUPS, bool WEIGHTS>(int64_t n) {
        norm_backward<X, GROUP, GROUPS, WEIGHTS, LAYER><<<unsigned(n), GROUP * GROUPS, 0, cuda_stream()>>>(p);
        check_launch(op);
    };
    if (!wide) {
        if (p.C <= 32 * NORM_ELEMENTS)
            launch.template operator()<32, 8, true>(blocks);
        else if (p.C <= 128 * NORM_ELEMENTS)
            launch.template operator()<128, 1, true>(blocks);
        else
            launch.template operator()<256, 1, true>(blocks);
        return;
    }
    if (p.partials) {
        dim3 grid(unsigned(ceil_div(p.C, 256 * 4)), unsigned(blocks));
        norm_weight_sums<X, LAYER><<<grid, 256, 0, cuda_stream()>>>(p);
        check_launch(op);
    }
    p.rows_per_block = 1;
    if (p.da || p.db) launch.template operator()<512, 1, false>(p.rows);
}

template <bool LAYER> void run_norm_backward(const char* op, const Acc& da, const Acc& db, const AccSum& dw,
                                             const AccSum& dbias, const View& ds, const View& dy,
                                             const View& x, const View& w, const View& stats, double offset) {
    expect_channels(op, x.cols());
    const bool weights = dw || dbias;
    constexpr int PARTS = LAYER ? 2 : 1;
    const int64_t C = x.cols(), blocks = norm_blocks(x.rows());
    float* partials = weights ? cuda_workspace_of<float>(blocks * C * PARTS) : nullptr;
    cuda_dispatch(x.dtype, [&]<class X> {
        NormBackward<X> p{.da = rows_of<X>(da),
                          .db = rows_of<X>(db),
                          .add_a = da.add,
                          .add_b = db.add,
                          .ds = rows_of<const X>(ds),
                          .dy = rows_of<const X>(dy),
                          .x = rows_of<const X>(x),
                          .stats = rows_of<const float>(stats),
                          .w = pointer_of<const X>(w),
                          .partials = partials,
                          .rows = x.rows(),
                          .C = int(C),
                          .offset = float(offset),
                          .vector = all_move_by(VEC<X>, da, db, ds, dy, x, w)};
        launch_norm_backward<X, LAYER>(p, op);
    });
    if (!weights) return;
    add_columns(op, dw, partials, blocks, C * PARTS);
    if (LAYER) add_columns(op, dbias, partials, blocks, C * PARTS, C);
}

} // namespace nvl
