// scale_rows on the GPU: a warp for each row.
#include "kernels/pointwise/scale_rows.h"

#include "engine/device/cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

constexpr int ROWS = 4;

template <class X, int N> __global__ void __launch_bounds__(ROWS* WARP)
    forward_kernel(Rows<X> y, Rows<const X> x, Rows<const X> g, int T, int C) {
    int t = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (t >= T) return;
    float f = to_float(*g(t));
    for (int c = lane * N; c < C; c += WARP * N) {
        Floats<N> v = load<N>(x(t) + c);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= f;
        store<N>(y(t) + c, v);
    }
}

template <class X, int N> __global__ void __launch_bounds__(ROWS* WARP)
    backward_kernel(Rows<X> dx, Rows<X> dg, Rows<const X> dy, Rows<const X> x, Rows<const X> g, int T, int C,
                    bool add_x, bool add_g) {
    int t = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (t >= T) return;
    float f = to_float(*g(t)), sum = 0;
    for (int c = lane * N; c < C; c += WARP * N) {
        Floats<N> d = load<N>(dy(t) + c);
        if (dg) {
            Floats<N> v = load<N>(x(t) + c);
#pragma unroll
            for (int i = 0; i < N; i++) sum += d[i] * v[i];
        }
        if (!dx) continue;
#pragma unroll
        for (int i = 0; i < N; i++) d[i] *= f;
        put<N>(dx(t) + c, d, add_x);
    }
    sum = warp_sum(sum);
    if (dg && lane == 0) put<1>(dg(t), Floats<1>{sum}, add_g);
}

template <class F, class... V> void launch(const char* kernel, const View& rows, F body, const V&... views) {
    if (!rows.rows()) return;
    cuda_dispatch(rows.dtype, [&]<class X> {
        auto blocks = unsigned(ceil_div(rows.rows(), ROWS));
        if (all_move_by(VEC<X>, views...))
            body.template operator()<X, VEC<X>>(blocks);
        else
            body.template operator()<X, 1>(blocks);
    });
    check_launch(kernel);
}

void forward(Out y, In x, In g) {
    launch(
        "scale_rows", x,
        [&]<class X, int N>(unsigned blocks) {
            forward_kernel<X, N><<<blocks, ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<X>(y), rows_of<const X>(x), rows_of<const X>(g), int(x.rows()), int(x.cols()));
        },
        y, x);
}
void backward(Acc dx, Acc dg, In dy, In x, In g) {
    launch(
        "scale_rows_backward", x,
        [&]<class X, int N>(unsigned blocks) {
            backward_kernel<X, N><<<blocks, ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<X>(dx), rows_of<X>(dg), rows_of<const X>(dy), rows_of<const X>(x),
                rows_of<const X>(g), int(x.rows()), int(x.cols()), dx.add, dg.add);
        },
        dx, dy, x);
}

OnCuda on_forward{scale_rows_forward, forward}, on_backward{scale_rows_backward, backward};

} // namespace

} // namespace nvl
