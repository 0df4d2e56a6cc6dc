#include "kernels/pointwise/softcap.h"

#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In x, double cap) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        A k = A(cap), inverse = A(1 / cap);
        int64_t n = x.cols();
        for_rows(x, [&](int64_t i) {
            const X* from = x.row<X>(i);
            X* to = y.row<X>(i);
            for (int64_t c = 0; c < n; c++) to[c] = X(k * vtanh(A(from[c]) * inverse));
        });
    });
}

static void backward(Acc dx, In dy, In x, double cap) {
    if (!dx) return;
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        A inverse = A(1 / cap);
        int64_t n = x.cols();
        for_rows(x, [&](int64_t i) {
            const X *v = x.row<X>(i), *d = dy.row<X>(i);
            put_row(
                dx, dx.row<X>(i), n, [&](int64_t c) __attribute__((always_inline)) {
                    A u = vtanh(A(v[c]) * inverse);
                    return A(d[c]) * (1 - u * u);
                });
        });
    });
}

constinit Kernel<void(Out, In, double)> softcap_forward{"softcap", forward};
constinit Kernel<void(Acc, In, In, double)> softcap_backward{"softcap_backward", backward};

Tensor softcap(Tensor x, double cap) {
    check(cap > 0, "softcap: the cap is %g; expected a positive number", cap);
    Tape& t = tape();
    Tensor y = t.tensor("softcap", x.shape(), x.dtype(), join("softcap", Rule::nonlinear, {x}));
    t.run(softcap_forward, y, x, cap);
    t.on_backward({y}, [=, &t] { t.run(softcap_backward, t.into(x), t.grad(y), x, cap); });
    return y;
}

static RegisterOp op{{
    .name = "softcap",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        return {softcap(c.input({T, c["C"]}, 3), 2.5)};
    },
    .cases = {"T=1 C=1", "T=7 C=100", "bench T=1024 C=32768"},
}};

} // namespace nvl
