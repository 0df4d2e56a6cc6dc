// The kernels that autograd itself needs: zero, accumulate (d = s or d += s, between any two types), and the
// constant that a backward pass starts from.
#include "engine/tape/tape.h"
#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X> struct Zero {
    static constexpr int N = VEC<X>;
    Rows<X> d;
    __device__ void operator()(const Part& p) const { put(d, p, Floats<N>{}); }
};
static void zero_cuda(Acc d) {
    if (d.add) return;                               // a later micro-batch: the gradient is already there
    if (d.dtype == Dtype::i32) d.dtype = Dtype::f32; // the zeros of both have the same bits
    cuda_dispatch(d.dtype, [&]<class X> { launch_pointwise<VEC<X>>("zero", Zero<X>{rows_of<X>(d)}, d, d); });
}

template <class D, class S> struct Accumulate {
    static constexpr int N = std::min(VEC<D>, VEC<S>);
    Rows<D> d;
    Rows<const S> s;
    bool add;
    __device__ void operator()(const Part& p) const { put(d, p, get<N>(s, p), add); }
};
static void accumulate_cuda(Acc d, In s) {
    if (!d) return;
    cuda_dispatch(d.dtype, [&]<class D> {
        cuda_dispatch(s.dtype, [&]<class S> {
            Accumulate<D, S> body{rows_of<D>(d), rows_of<const S>(s), d.add};
            launch_pointwise<Accumulate<D, S>::N>("accumulate", body, d, d, s);
        });
    });
}

template <class X> struct FillWith {
    static constexpr int N = VEC<X>;
    Rows<X> d;
    float value;
    bool add;
    __device__ void operator()(const Part& p) const {
        Floats<N> f;
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = value;
        put(d, p, f, add);
    }
};
static void fill_cuda(Acc d, double value) {
    cuda_dispatch(d.dtype, [&]<class X> {
        launch_pointwise<VEC<X>>("fill", FillWith<X>{rows_of<X>(d), float(value), d.add}, d, d);
    });
}

static OnCuda zero_on_cuda{zero, zero_cuda};
static OnCuda accumulate_on_cuda{accumulate, accumulate_cuda};
static OnCuda fill_on_cuda{fill_with, fill_cuda};

} // namespace nvl
