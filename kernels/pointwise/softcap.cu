#include "kernels/pointwise/softcap.h"

#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X> struct SoftcapForward {
    static constexpr int N = VEC<X>;
    Rows<X> y;
    Rows<const X> x;
    float cap, inverse;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(x, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = cap * tanhf(f[i] * inverse);
        put(y, p, f);
    }
};
static void forward(Out y, In x, double cap) {
    cuda_dispatch(x.dtype, [&]<class X> {
        SoftcapForward<X> body{rows_of<X>(y), rows_of<const X>(x), float(cap), float(1 / cap)};
        launch_pointwise<VEC<X>>("softcap", body, y, y, x);
    });
}

template <class X> struct SoftcapBackward {
    static constexpr int N = VEC<X>;
    Rows<X> dx;
    Rows<const X> dy, x;
    float inverse;
    bool add;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(x, p), d = get<N>(dy, p);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float t = tanhf(f[i] * inverse);
            f[i] = __fmul_rn(d[i], fmaf(-t, t, 1.f));
        }
        put(dx, p, f, add);
    }
};
static void backward(Acc dx, In dy, In x, double cap) {
    if (!dx) return;
    cuda_dispatch(x.dtype, [&]<class X> {
        SoftcapBackward<X> body{rows_of<X>(dx), rows_of<const X>(dy), rows_of<const X>(x), float(1 / cap),
                                dx.add};
        launch_pointwise<VEC<X>>("softcap_backward", body, x, dx, dy, x);
    });
}

static OnCuda on_cuda{softcap_forward, forward};
static OnCuda backward_on_cuda{softcap_backward, backward};

} // namespace nvl
