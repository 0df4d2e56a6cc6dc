// clamped_swiglu on the GPU: a thread for each pair of columns.
#include "kernels/pointwise/clamped_swiglu.h"

#include "engine/device/cuda.h"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

constexpr int THREADS = 256;

/// Pairs (g, u) of one row are neighbours: PAIRS of them move as one access; with ONE a pair moves as two.
template <bool ONE, int N, class X> __device__ __forceinline__ Floats<N> load_pairs(const X* p) {
    if constexpr (!ONE)
        return load<N>(p);
    else
        return {to_float(p[0]), to_float(p[1])};
}
template <bool ONE, int N, class X>
__device__ __forceinline__ void put_pairs(X* p, const Floats<N>& v, bool add) {
    if constexpr (!ONE)
        put<N>(p, v, add);
    else
        put<1>(p, Floats<1>{v[0]}, add), put<1>(p + 1, Floats<1>{v[1]}, add);
}

template <class X, int PAIRS, bool ONE> __global__ void __launch_bounds__(THREADS)
    forward_kernel(Rows<X> y, Rows<const X> x, int F, int64_t threads, float alpha, float limit) {
    int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= threads) return;
    int across = (F + PAIRS - 1) / PAIRS, f = int(i % across) * PAIRS;
    int64_t row = i / across;
    Floats<PAIRS> out;
    Floats<2 * PAIRS> v = load_pairs<ONE, 2 * PAIRS>(x(row) + 2 * f);
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        float g = fminf(v[2 * p], limit), u = fminf(fmaxf(v[2 * p + 1], -limit), limit);
        out[p] = (u + 1) * g / (1 + expf(-alpha * g));
    }
    store<PAIRS>(y(row) + f, out);
}

template <class X, int PAIRS, bool ONE> __global__ void __launch_bounds__(THREADS)
    backward_kernel(Rows<X> dx, Rows<const X> dy, Rows<const X> x, int F, int64_t threads, float alpha,
                    float limit, bool add) {
    int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= threads) return;
    int across = (F + PAIRS - 1) / PAIRS, f = int(i % across) * PAIRS;
    int64_t row = i / across;
    Floats<2 * PAIRS> v = load_pairs<ONE, 2 * PAIRS>(x(row) + 2 * f);
    Floats<PAIRS> d = load<PAIRS>(dy(row) + f);
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        float g = v[2 * p], u = v[2 * p + 1];
        bool open_g = g <= limit, open_u = u >= -limit && u <= limit;
        g = fminf(g, limit), u = fminf(fmaxf(u, -limit), limit);
        float s = 1 / (1 + expf(-alpha * g));
        v[2 * p] = open_g ? d[p] * (u + 1) * s * (1 + alpha * g * (1 - s)) : 0.f;
        v[2 * p + 1] = open_u ? d[p] * g * s : 0.f;
    }
    put_pairs<ONE>(dx(row) + 2 * f, v, add);
}

/// body<X, PAIRS>(blocks, threads) with as many pairs at a time as the views allow.
template <class Body, class... V>
void launch(const char* kernel, const View& y, const View& x, Body body, const V&... wide) {
    int64_t F = y.cols();
    if (!y.numel()) return;
    cuda_dispatch(y.dtype, [&]<class X> {
        constexpr int PAIRS = VEC<X> / 2;
        auto run = [&]<int P, bool ONE> {
            int64_t threads = y.rows() * (F / P);
            body.template operator()<X, P, ONE>(unsigned(ceil_div(threads, THREADS)), threads);
        };
        if (all_move_by(2 * PAIRS, x, wide...) && moves_by(y, PAIRS))
            run.template operator()<PAIRS, false>();
        else
            run.template operator()<1, true>();
    });
    check_launch(kernel);
}

void forward(Out y, In x, double alpha, double limit) {
    launch("clamped_swiglu", y, x, [&]<class X, int P, bool ONE>(unsigned blocks, int64_t threads) {
        forward_kernel<X, P, ONE><<<blocks, THREADS, 0, cuda_stream()>>>(
            rows_of<X>(y), rows_of<const X>(x), int(y.cols()), threads, float(alpha), float(limit));
    });
}
void backward(Acc dx, In dy, In x, double alpha, double limit) {
    if (!dx) return;
    launch(
        "clamped_swiglu_backward", dy, x,
        [&]<class X, int P, bool ONE>(unsigned blocks, int64_t threads) {
            backward_kernel<X, P, ONE><<<blocks, THREADS, 0, cuda_stream()>>>(
                rows_of<X>(dx), rows_of<const X>(dy), rows_of<const X>(x), int(dy.cols()), threads,
                float(alpha), float(limit), dx.add);
        },
        dx);
}

OnCuda on_forward{clamped_swiglu_forward, forward}, on_backward{clamped_swiglu_backward, backward};

} // namespace

} // namespace nvl
