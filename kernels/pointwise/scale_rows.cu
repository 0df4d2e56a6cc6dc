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

/// The inner product of a row has one order, whether its elements move at once or one by one.
template <class X> __global__ void __launch_bounds__(ROWS* WARP)
    backward_kernel(Rows<X> dx, Rows<X> dg, Rows<const X> dy, Rows<const X> x, Rows<const X> g, int T, int C,
                    bool add_x, bool add_g, bool vector) {
    constexpr int N = VEC<X>;
    int t = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (t >= T) return;
    float f = to_float(*g(t)), sum = 0;
    for (int c = lane * N; c < C; c += WARP * N) {
        Floats<N> d = floats(load_part<N>(dy(t), c, C, vector));
        if (dg) {
            Floats<N> v = floats(load_part<N>(x(t), c, C, vector));
#pragma unroll
            for (int i = 0; i < N; i++) sum += d[i] * v[i];
        }
        if (!dx) continue;
#pragma unroll
        for (int i = 0; i < N; i++) d[i] *= f;
        put_part<N>(dx(t), c, C, d, vector, add_x);
    }
    sum = warp_sum(sum);
    if (dg && lane == 0) put<1>(dg(t), Floats<1>{sum}, add_g);
}

void forward(Out y, In x, In g) {
    if (!x.rows()) return;
    cuda_dispatch(x.dtype, [&]<class X> {
        auto run = [&]<int N> {
            forward_kernel<X, N><<<unsigned(ceil_div(x.rows(), ROWS)), ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<X>(y), rows_of<const X>(x), rows_of<const X>(g), int(x.rows()), int(x.cols()));
        };
        all_move_by(VEC<X>, y, x) ? run.template operator()<VEC<X>>() : run.template operator()<1>();
    });
    check_launch("scale_rows");
}
void backward(Acc dx, Acc dg, In dy, In x, In g) {
    if (!x.rows()) return;
    cuda_dispatch(x.dtype, [&]<class X> {
        backward_kernel<X><<<unsigned(ceil_div(x.rows(), ROWS)), ROWS * WARP, 0, cuda_stream()>>>(
            rows_of<X>(dx), rows_of<X>(dg), rows_of<const X>(dy), rows_of<const X>(x), rows_of<const X>(g),
            int(x.rows()), int(x.cols()), dx.add, dg.add, all_move_by(VEC<X>, dx, dy, x));
    });
    check_launch("scale_rows_backward");
}

OnCuda on_forward{scale_rows_forward, forward}, on_backward{scale_rows_backward, backward};

} // namespace

} // namespace nvl
