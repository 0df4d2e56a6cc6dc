#include "kernels/pointwise/clamped_swiglu.h"

#include <algorithm>

#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In x, double alpha, double limit) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        A a = A(alpha), most = A(limit);
        int64_t F = y.cols();
        for_rows(y, [&](int64_t i) {
            const X* v = x.row<X>(i);
            X* to = y.row<X>(i);
            for (int64_t f = 0; f < F; f++) {
                A g = std::min(A(v[2 * f]), most), u = std::clamp(A(v[2 * f + 1]), -most, most);
                to[f] = X((u + 1) * g / (1 + vexp(-a * g)));
            }
        });
    });
}

static void backward(Acc dx, In dy, In x, double alpha, double limit) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        A a = A(alpha), most = A(limit);
        int64_t F = dy.cols();
        for_rows(dy, [&](int64_t i) {
            const X *d = dy.row<X>(i), *v = x.row<X>(i);
            X* to = dx.row<X>(i);
            for (int64_t f = 0; f < F; f++) {
                A g = A(v[2 * f]), u = A(v[2 * f + 1]);
                bool open_g = g <= most, open_u = u >= -most && u <= most;
                g = std::min(g, most), u = std::clamp(u, -most, most);
                A s = 1 / (1 + vexp(-a * g));
                dx.put(to[2 * f], open_g ? A(d[f]) * (u + 1) * s * (1 + a * g * (1 - s)) : A(0));
                dx.put(to[2 * f + 1], open_u ? A(d[f]) * g * s : A(0));
            }
        });
    });
}

constinit Kernel<void(Out, In, double, double)> clamped_swiglu_forward{"clamped_swiglu", forward};
constinit Kernel<void(Acc, In, In, double, double)> clamped_swiglu_backward{"clamped_swiglu_backward",
                                                                            backward};

Tensor clamped_swiglu(Tensor x, double alpha, double limit) {
    check(x.dim(-1) % 2 == 0, "clamped_swiglu: %s is %s; expected an even last dimension", x.name(),
          x.shape().text().c_str());
    check(limit > 0, "clamped_swiglu: expected a positive limit, found %g", limit);
    Tape& t = tape();
    Shape s = x.shape();
    s[-1] = x.dim(-1) / 2;
    Tensor y = t.tensor("clamped_swiglu", s, x.dtype(), join("clamped_swiglu", Rule::nonlinear, {x}));
    t.run(clamped_swiglu_forward, y, x, alpha, limit);
    t.on_backward({y}, [=, &t] { t.run(clamped_swiglu_backward, t.into(x), t.grad(y), x, alpha, limit); });
    return y;
}

static RegisterOp op{{
    .name = "clamped_swiglu",
    .build = [](Case& c) -> std::vector<Tensor> {
        return {clamped_swiglu(c.input({c.rows("T"), 2 * c["F"]}, 2), 1.702, 3)};
    },
    .cases = {"T=1 F=1", "T=7 F=33", "T=9 F=48", "bench T=4096 F=2880"},
}};

} // namespace nvl
