#include "kernels/pointwise/gated.h"

#include "kernels/pointwise/functions.cuh"
#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X, class F> struct GatedForward {
    static constexpr int N = VEC<X>;
    Rows<X> y;
    Rows<const X> g, u;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(g, p), v = get<N>(u, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = F::value(f[i]) * v[i];
        put(y, p, f);
    }
};
template <class F> static void forward(Out y, In g, In u) {
    cuda_dispatch(y.dtype, [&]<class X> {
        GatedForward<X, F> body{rows_of<X>(y), rows_of<const X>(g), rows_of<const X>(u)};
        launch_pointwise<VEC<X>>("gated", body, y, y, g, u);
    });
}

using cuda_functions::Both;

template <class X, class F> struct GatedBackward {
    static constexpr int N = VEC<X>;
    Rows<X> dg, du;
    Rows<const X> dy, g, u;
    bool add_g, add_u;
    __device__ void operator()(const Part& p) const {
        Floats<N> d = get<N>(dy, p), f = get<N>(g, p), v = get<N>(u, p), to_g, to_u;
#pragma unroll
        for (int i = 0; i < N; i++) {
            Both b = F::both(f[i]);
            to_g[i] = __fmul_rn(__fmul_rn(d[i], v[i]), b.slope);
            to_u[i] = __fmul_rn(d[i], b.value);
        }
        if (dg) put(dg, p, to_g, add_g);
        if (du) put(du, p, to_u, add_u);
    }
};
template <class F> static void backward(Acc dg, Acc du, In dy, In g, In u) {
    cuda_dispatch(dy.dtype, [&]<class X> {
        GatedBackward<X, F> body{
            rows_of<X>(dg), rows_of<X>(du), rows_of<const X>(dy), rows_of<const X>(g), rows_of<const X>(u),
            dg.add,         du.add};
        launch_pointwise<VEC<X>>("gated_backward", body, dy, dg, du, dy, g, u);
    });
}

template <class... F> static bool register_all() { // in the order of enum Activation
    static_assert(sizeof...(F) == ACTIVATIONS);
    size_t f = 0, b = 0;
    (OnCuda(gated_forward[f++], forward<F>), ...);
    (OnCuda(gated_backward[b++], backward<F>), ...);
    return true;
}
using namespace cuda_functions;
static const bool registered = register_all<Silu, GeluTanh, GeluErf, QuickGelu, Relu2, Relu, Sigmoid, Tanh>();

} // namespace nvl
