// One launch for every elementwise kernel: each thread works on N elements of a row of all its views.
//
// Where all views are dense the whole array is one row. Where they are aligned a thread's elements are
// neighbours and move at once; else they lie a row of threads apart and move one by one, each access still
// coalesced. An element is computed alike both ways.
#pragma once
#include <algorithm>

#include "engine/device/cuda.h"
#include "kernels/tile/vec.cuh"

namespace nvl {

/// The elements of one thread: col, col + step, ...; `whole` if all N exist and may be moved at once.
struct Part {
    int64_t row, col, cols;
    int step;
    bool whole;
};
template <int N, class X> __device__ __forceinline__ Floats<N> get(const Rows<const X>& rows, const Part& p) {
    const X* at = rows(p.row) + p.col;
    if (p.whole) return load<N>(at);
    Floats<N> f;
#pragma unroll
    for (int i = 0; i < N; i++) f[i] = p.col + i * p.step < p.cols ? to_float(at[i * p.step]) : 0.f;
    return f;
}
template <int N, class X> __device__ __forceinline__ void put(const Rows<X>& rows, const Part& p,
                                                              const Floats<N>& f, bool add = false) {
    X* at = rows(p.row) + p.col;
    if (p.whole) return put<N>(at, f, add);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (p.col + i * p.step < p.cols) put<1>(at + i * p.step, Floats<1>{f[i]}, add);
}

struct PointwiseGrid {
    int64_t rows, cols;
    unsigned column_blocks;
    int log_width; // 2^log_width threads side by side in a row
    bool vector;
};
constexpr int POINTWISE_THREADS = 256;

template <int N, class Body> __global__ void __launch_bounds__(POINTWISE_THREADS)
    pointwise(Body body, PointwiseGrid g) {
    unsigned width = 1u << g.log_width, x = threadIdx.x & (width - 1), y = threadIdx.x >> g.log_width;
    unsigned row_block = blockIdx.x / g.column_blocks, column_block = blockIdx.x % g.column_blocks;
    Part p{int64_t(row_block) * (POINTWISE_THREADS >> g.log_width) + y,
           int64_t(column_block) * width * N + (g.vector ? x * N : x), g.cols, g.vector ? 1 : int(width)};
    p.whole = g.vector && p.col + N <= g.cols;
    if (p.row < g.rows && p.col < g.cols) body(p);
}

inline bool starts_aligned(const View& v, int N) {
    return reinterpret_cast<uintptr_t>(v.data) % size_t(size_of(v.dtype) * N) == 0;
}

template <int N, class Body>
void launch_pointwise_grid(const char* kernel, const Body& body, PointwiseGrid g) {
    if (g.rows == 0 || g.cols == 0) return;
    while (g.log_width < 8 && (int64_t(N) << g.log_width) < g.cols) g.log_width++;
    g.column_blocks = unsigned(ceil_div(g.cols, int64_t(N) << g.log_width));
    int64_t blocks = ceil_div(g.rows, POINTWISE_THREADS >> g.log_width) * g.column_blocks;
    pointwise<N><<<unsigned(blocks), POINTWISE_THREADS, 0, cuda_stream()>>>(body, g);
    check_launch(kernel);
}

/// body(Part) over the elements of `shape`; `views` are all that the body moves, of the same shape or empty.
template <int N, class Body, class... V>
void launch_pointwise(const char* kernel, const Body& body, const View& shape, const V&... views) {
    PointwiseGrid g{shape.rows(), shape.cols()};
    if ((is_dense(views) && ...)) {
        g.rows = 1, g.cols = shape.numel();
        g.vector = (starts_aligned(views, N) && ...);
    } else
        g.vector = all_move_by(N, views...);
    launch_pointwise_grid<N>(kernel, body, g);
}
/// The same where a Part must stay a part of a row of `shape`, since the body looks something up by row.
template <int N, class Body, class... V>
void launch_by_row(const char* kernel, const Body& body, const View& shape, const V&... views) {
    launch_pointwise_grid<N>(kernel, body, {shape.rows(), shape.cols(), 1, 0, all_move_by(N, views...)});
}

} // namespace nvl
