#include "kernels/pointwise/scale.h"

#include "kernels/cpu/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In x, double factor) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = x.cols();
        for_rows(x, [&](int64_t i) {
            const X* from = x.row<X>(i);
            X* to = y.row<X>(i);
            for (int64_t c = 0; c < n; c++) to[c] = X(A(from[c]) * A(factor));
        });
    });
}

static void backward(Acc dx, In dy, double factor) {
    if (!dx) return;
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        for_rows(dy, [&](int64_t i) {
            const X* d = dy.row<X>(i);
            put_row(dx, dx.row<X>(i), dy.cols(), [&](int64_t c) { return A(d[c]) * A(factor); });
        });
    });
}

constinit Kernel<void(Out, In, double)> scale_forward{"scale", forward};
constinit Kernel<void(Acc, In, double)> scale_backward{"scale_backward", backward};

Tensor scale(Tensor x, double c) {
    Tape& t = tape();
    Tensor y = t.tensor("scale", x.shape(), x.dtype(), join("scale", Rule::sum, {x}));
    t.run(scale_forward, y, x, c);
    t.on_backward({y}, [=, &t] { t.run(scale_backward, t.into(x), t.grad(y), c); });
    return y;
}

static RegisterOp op{{
    .name = "scale",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        return {scale(c.input({T, c["C"]}), 0.3)};
    },
    .cases = {"T=1 C=1", "T=7 C=100", "bench T=4096 C=768"},
}};

} // namespace nvl
