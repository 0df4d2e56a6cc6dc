#include "kernels/pointwise/mul.h"

#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X> struct MulForward {
    static constexpr int N = VEC<X>;
    Rows<X> y;
    Rows<const X> a, b;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(a, p), g = get<N>(b, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] *= g[i];
        put(y, p, f);
    }
};
static void forward(Out y, In a, In b) {
    cuda_dispatch(y.dtype, [&]<class X> {
        MulForward<X> body{rows_of<X>(y), rows_of<const X>(a), rows_of<const X>(b)};
        launch_pointwise<VEC<X>>("mul", body, y, y, a, b);
    });
}

template <class X> struct MulBackward {
    static constexpr int N = VEC<X>;
    Rows<X> da, db;
    Rows<const X> dy, a, b;
    bool add_a, add_b;
    __device__ void to(const Rows<X>& gradient, bool add, const Floats<N>& d, const Rows<const X>& other,
                       const Part& p) const {
        if (!gradient) return;
        Floats<N> f = get<N>(other, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = __fmul_rn(f[i], d[i]);
        put(gradient, p, f, add);
    }
    __device__ void operator()(const Part& p) const {
        Floats<N> d = get<N>(dy, p);
        to(da, add_a, d, b, p);
        to(db, add_b, d, a, p);
    }
};
static void backward(Acc da, Acc db, In dy, In a, In b) {
    cuda_dispatch(dy.dtype, [&]<class X> {
        MulBackward<X> body{
            rows_of<X>(da), rows_of<X>(db), rows_of<const X>(dy), rows_of<const X>(a), rows_of<const X>(b),
            da.add,         db.add};
        launch_pointwise<VEC<X>>("mul_backward", body, dy, da, db, dy, a, b);
    });
}

static OnCuda on_cuda{mul_forward, forward};
static OnCuda backward_on_cuda{mul_backward, backward};

} // namespace nvl
