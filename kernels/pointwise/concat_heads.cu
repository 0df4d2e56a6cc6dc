// concat_heads on the GPU: a warp for each head of a token; one for each token where heads are summed.
#include "kernels/pointwise/concat_heads.h"

#include "engine/device/cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

constexpr int ROWS = 4;

/// Copies a row by a warp, N elements a lane.
template <int N, class X> __device__ __forceinline__ void copy_row(X* to, const X* from, int n, bool add) {
    for (int c = int(threadIdx.x) % WARP * N; c < n; c += WARP * N) put<N>(to + c, load<N>(from + c), add);
}

template <class X, int N> __global__ void __launch_bounds__(ROWS* WARP)
    forward_kernel(Rows<X> y, Rows<const X> a, Rows<const X> b, int rows, int Da, int Db, int shared) {
    int i = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP;
    if (i >= rows) return;
    copy_row<N>(y(i), a(i), Da, false);
    copy_row<N>(y(i) + Da, b(i / shared), Db, false);
}

/// da, and db where every head has its own.
template <class X, int N> __global__ void __launch_bounds__(ROWS* WARP)
    split_kernel(Rows<X> da, Rows<X> db, Rows<const X> dy, int rows, int Da, int Db, bool add_a, bool add_b) {
    int i = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP;
    if (i >= rows) return;
    if (da) copy_row<N>(da(i), dy(i), Da, add_a);
    if (db) copy_row<N>(db(i), dy(i) + Da, Db, add_b);
}

/// db of one head that all share: their sum, in order.
template <class X, int N> __global__ void __launch_bounds__(ROWS* WARP)
    sum_heads_kernel(Rows<X> db, Rows<const X> dy, int T, int H, int Da, int Db, bool add) {
    int t = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP;
    if (t >= T) return;
    for (int c = int(threadIdx.x) % WARP * N; c < Db; c += WARP * N) {
        Floats<N> sum{};
        for (int h = 0; h < H; h++) {
            Floats<N> d = load<N>(dy(int64_t(t) * H + h) + Da + c);
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] += d[k];
        }
        put<N>(db(t) + c, sum, add);
    }
}

unsigned blocks_for(int64_t rows) { return unsigned(ceil_div(rows, ROWS)); }

void forward(Out y, In a, In b) {
    if (!y.rows()) return;
    by_width(
        y.dtype,
        [&]<class X, int N> {
            forward_kernel<X, N><<<blocks_for(y.rows()), ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<X>(y), rows_of<const X>(a), rows_of<const X>(b), int(y.rows()), int(a.cols()),
                int(b.cols()), int(a.dim(1) / b.dim(1)));
        },
        y, a, b);
    check_launch("concat_heads");
}

void backward(Acc da, Acc db, In dy) {
    if (!dy.rows() || (!da && !db)) return;
    int Da = int(da ? da.cols() : dy.cols() - db.cols()), Db = int(dy.cols()) - Da;
    int H = int(dy.dim(1));
    bool shared = db && db.dim(1) != H;
    by_width(
        dy.dtype,
        [&]<class X, int N> {
            if (da || !shared)
                split_kernel<X, N><<<blocks_for(dy.rows()), ROWS * WARP, 0, cuda_stream()>>>(
                    rows_of<X>(da), shared ? Rows<X>{} : rows_of<X>(db), rows_of<const X>(dy), int(dy.rows()),
                    Da, Db, da.add, db.add);
            if (shared)
                sum_heads_kernel<X, N><<<blocks_for(dy.dim(0)), ROWS * WARP, 0, cuda_stream()>>>(
                    rows_of<X>(db), rows_of<const X>(dy), int(dy.dim(0)), H, Da, Db, db.add);
        },
        da, db, dy);
    check_launch("concat_heads_backward");
}

OnCuda on_forward{concat_heads_forward, forward}, on_backward{concat_heads_backward, backward};

} // namespace

} // namespace nvl
