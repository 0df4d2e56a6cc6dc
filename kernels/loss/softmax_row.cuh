// softmax_row.h on the device: one block of threads per row of logits.
#pragma once
#include "engine/device/cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

constexpr int LOSS_THREADS = 256;

/// Whether each row starts at a multiple of N elements; rows may end anywhere.
inline bool rows_aligned(const View& v, int N) {
    bool aligned = reinterpret_cast<uintptr_t>(v.data) % size_t(size_of(v.dtype) * N) == 0;
    for (int d = 0; d + 1 < v.rank; d++)
        aligned = aligned && (v.shape[size_t(d)] == 1 || v.stride[size_t(d)] % N == 0);
    return aligned;
}

/// N neighbouring elements from `col`; `rest` beyond the end. Alike whether they move at once or one by one.
template <int N, class X> __device__ __forceinline__ Floats<N>
load_part(const X* row, int64_t col, int64_t cols, bool vector, float rest) {
    if (vector && col + N <= cols) return load<N>(row + col);
    Floats<N> f;
#pragma unroll
    for (int i = 0; i < N; i++) f[i] = col + i < cols ? to_float(row[col + i]) : rest;
    return f;
}

__device__ __forceinline__ float capped(float l, float cap) { return cap == 0 ? l : cap * tanhf(l / cap); }

/// log(sum(exp(l))) = max + rest.
struct CudaLogSum {
    float max, rest;
    __device__ float lse() const { return max + rest; }
    __device__ float loss(float logit) const { return rest + (max - logit); } // loses less than lse - logit
};

/// One read of the row: a thread keeps the maximum of what it has seen, and its sum relative to that.
template <class L> __device__ __forceinline__ CudaLogSum log_sum_exp(const L* row, int64_t V, float cap,
                                                                     bool vector, float* scratch) {
    constexpr int N = VEC<L>;
    float top = -INFINITY, sum = 0;
#pragma unroll 2
    for (int64_t c = int64_t(threadIdx.x) * N; c < V; c += LOSS_THREADS * N) {
        Floats<N> l = load_part<N>(row, c, V, vector, -INFINITY);
        float before = top;
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (cap != 0) l[i] = capped(l[i], cap);
            if (c + i < V) top = l[i] > top ? l[i] : top;
        }
        if (top != before) sum *= expf(before - top);
#pragma unroll
        for (int i = 0; i < N; i++)
            if (c + i < V) sum += l[i] == -INFINITY ? 0.f : expf(l[i] - top);
    }
    float all = block_max<LOSS_THREADS>(top, scratch);
    sum = top == -INFINITY ? sum : sum * expf(top - all);
    return {all, logf(block_sum<LOSS_THREADS>(sum, scratch))};
}

/// Losses of rows [from, from + blocks) from logits whose row 0 is row `from`. A label beyond the vocabulary
/// makes the loss NaN.
template <class L> __global__ void __launch_bounds__(LOSS_THREADS)
    token_loss_kernel(Rows<const L> logits, const int32_t* labels, Rows<float> token, Rows<float> lse,
                      int64_t from, int64_t V, float cap, bool vector) {
    __shared__ float scratch[LOSS_THREADS / WARP];
    const L* l = logits(blockIdx.x);
    int64_t i = from + blockIdx.x, label = labels[i];
    float loss = 0, sum = 0;
    if (label >= 0) { // the same for the whole block
        CudaLogSum s = log_sum_exp(l, V, cap, vector, scratch);
        sum = s.lse(), loss = label < V ? s.loss(capped(to_float(l[label]), cap)) : NAN;
    }
    if (threadIdx.x == 0) *lse(i) = sum, *token(i) = loss;
}

/// loss = sum of the tokens' and z_loss lse^2, in double.
static __global__ void __launch_bounds__(LOSS_THREADS)
    total_loss_kernel(float* loss, Rows<const float> token, Rows<const float> lse, int64_t T, double z_loss) {
    __shared__ double scratch[LOSS_THREADS / WARP];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < T; i += LOSS_THREADS) {
        double l = *lse(i);
        sum += *token(i) + z_loss * l * l;
    }
    sum = block_sum<LOSS_THREADS>(sum, scratch);
    if (threadIdx.x == 0) *loss = float(sum);
}

/// What the gradient of the tokens' losses is made of (softmax_row.h); dtoken and dlse may be null.
struct LossGradient {
    const float* dloss;
    Rows<const float> dtoken, dlse, lse;
    const int32_t* labels;
    float z_loss, cap;
};
constexpr int GRADIENT_STEPS = 4; // vectors per thread

/// d[r][v - from_v] = the gradient with respect to logit v of row from + r, v in [from_v, to_v); d may be the
/// logits themselves.
template <class L, class D> __global__ void __launch_bounds__(LOSS_THREADS)
    softmax_gradient_kernel(Rows<const L> logits, Rows<D> d, LossGradient g, int64_t from, int64_t from_v,
                            int64_t to_v, bool add, bool vector) {
    constexpr int N = VEC<L>;
    const L* l = logits(blockIdx.x) + from_v;
    D* to = d(blockIdx.x);
    int64_t i = from + blockIdx.x, cols = to_v - from_v, label = g.labels[i] - from_v;
    bool ignored = g.labels[i] < 0;
    float dloss = *g.dloss, lse = *g.lse(i), of_label = dloss + (g.dtoken ? *g.dtoken(i) : 0.f);
    float of_p = of_label + (g.dlse ? *g.dlse(i) : 0.f) + 2 * g.z_loss * lse * dloss;
    int64_t c = (int64_t(blockIdx.y) * GRADIENT_STEPS * LOSS_THREADS + threadIdx.x) * N;
#pragma unroll
    for (int s = 0; s < GRADIENT_STEPS; s++, c += LOSS_THREADS * N) {
        if (c >= cols) return;
        Floats<N> v = load_part<N>(l, c, cols, vector, 0.f);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float t = g.cap == 0 ? 0.f : tanhf(v[k] / g.cap), x = g.cap == 0 ? v[k] : g.cap * t;
            x = of_p * expf(x - lse) - (c + k == label ? of_label : 0.f);
            v[k] = ignored ? 0.f : x * (1 - t * t);
        }
        if (vector && c + N <= cols) {
            put<N>(to + c, v, add);
            continue;
        }
#pragma unroll
        for (int k = 0; k < N; k++)
            if (c + k < cols) put<1>(to + c + k, Floats<1>{v[k]}, add);
    }
}
template <class L> dim3 softmax_gradient_grid(int64_t rows, int64_t cols) {
    return {unsigned(rows), unsigned(ceil_div(cols, LOSS_THREADS * VEC<L> * GRADIENT_STEPS))};
}

} // namespace nvl
