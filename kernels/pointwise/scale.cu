#include "kernels/pointwise/scale.h"

#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X> struct Scale {
    static constexpr int N = VEC<X>;
    Rows<X> y;
    Rows<const X> x;
    float factor;
    bool add;
    __device__ void operator()(const Part& p) const {
        Floats<N> f = get<N>(x, p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = __fmul_rn(f[i], factor);
        put(y, p, f, add);
    }
};
static void run(const char* kernel, const View& y, const View& x, double c) {
    if (!y) return;
    cuda_dispatch(y.dtype, [&]<class X> {
        Scale<X> body{rows_of<X>(y), rows_of<const X>(x), float(c), y.add};
        launch_pointwise<VEC<X>>(kernel, body, y, y, x);
    });
}
static void forward(Out y, In x, double c) { run("scale", y, x, c); }
static void backward(Acc dx, In dy, double c) { run("scale_backward", dx, dy, c); }

static OnCuda on_cuda{scale_forward, forward};
static OnCuda backward_on_cuda{scale_backward, backward};

} // namespace nvl
