#include "kernels/pointwise/activation.h"

#include "kernels/pointwise/functions.cuh"
#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X, class F> struct ActivationForward {
    static constexpr int N = VEC<X>;
    Rows<X> y;
    Rows<const X> x;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(x, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = F::value(f[i]);
        put(y, p, f);
    }
};
template <class F> static void forward(Out y, In x) {
    cuda_dispatch(x.dtype, [&]<class X> {
        ActivationForward<X, F> body{rows_of<X>(y), rows_of<const X>(x)};
        launch_pointwise<VEC<X>>("activation", body, y, y, x);
    });
}

template <class X, class F> struct ActivationBackward {
    static constexpr int N = VEC<X>;
    Rows<X> dx;
    Rows<const X> dy, x;
    bool add;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(x, p), d = get<N>(dy, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = __fmul_rn(d[i], F::both(f[i]).slope);
        put(dx, p, f, add);
    }
};
template <class F> static void backward(Acc dx, In dy, In x) {
    if (!dx) return;
    cuda_dispatch(x.dtype, [&]<class X> {
        ActivationBackward<X, F> body{rows_of<X>(dx), rows_of<const X>(dy), rows_of<const X>(x), dx.add};
        launch_pointwise<VEC<X>>("activation_backward", body, x, dx, dy, x);
    });
}

template <class... F> static bool register_all() { // in the order of enum Activation
    static_assert(sizeof...(F) == ACTIVATIONS);
    size_t f = 0, b = 0;
    (OnCuda(activation_forward[f++], forward<F>), ...);
    (OnCuda(activation_backward[b++], backward<F>), ...);
    return true;
}
using namespace cuda_functions;
static const bool registered = register_all<Silu, GeluTanh, GeluErf, QuickGelu, Relu2, Relu, Sigmoid, Tanh>();

} // namespace nvl
