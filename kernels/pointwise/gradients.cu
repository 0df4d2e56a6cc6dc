// The kernels that autograd itself needs: zero, and accumulate (d = s or d += s, between any two types).
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

static OnCuda zero_on_cuda{zero, zero_cuda};
static OnCuda accumulate_on_cuda{accumulate, accumulate_cuda};

} // namespace nvl
