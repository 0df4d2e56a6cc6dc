#include "kernels/pointwise/add.h"

#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X> struct AddForward {
    static constexpr int N = VEC<X>;
    Rows<X> y;
    Rows<const X> a, b;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(a, p), g = get<N>(b, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] += g[i];
        put(y, p, f);
    }
};
static void forward(Out y, In a, In b) {
    cuda_dispatch(y.dtype, [&]<class X> {
        AddForward<X> body{rows_of<X>(y), rows_of<const X>(a), rows_of<const X>(b)};
        launch_pointwise<VEC<X>>("add", body, y, y, a, b);
    });
}

static OnCuda on_cuda{add_forward, forward};

} // namespace nvl
