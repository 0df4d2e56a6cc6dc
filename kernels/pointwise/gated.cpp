#include "kernels/pointwise/gated.h"

#include "kernels/cpu/rows.h"
#include "kernels/pointwise/functions.h"
#include "kernels/pointwise/mul.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

template <class F> static void forward(Out y, In g, In u) {
    dispatch(y.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = y.cols();
        for_rows(y, [&](int64_t i) {
            const X *a = g.row<X>(i), *b = u.row<X>(i);
            X* to = y.row<X>(i);
            for (int64_t c = 0; c < n; c++) to[c] = X(F::value(A(a[c])) * A(b[c]));
        });
    });
}

template <class F> static void backward(Acc dg, Acc du, In dy, In g, In u) {
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = dy.cols();
        bool both = dg && du && !dg.add && !du.add; // one loop: f and f' share their exponential
        for_rows(dy, [&](int64_t i) {
            const X *d = dy.row<X>(i), *a = g.row<X>(i), *b = u.row<X>(i);
            if (both) {
                X *p = dg.row<X>(i), *q = du.row<X>(i);
#pragma GCC ivdep
                for (int64_t c = 0; c < n; c++) {
                    auto f = F::both(A(a[c]));
                    p[c] = X(A(d[c]) * A(b[c]) * f.slope);
                    q[c] = X(A(d[c]) * f.value);
                }
                return;
            }
            auto to_g = [&](int64_t c) __attribute__((always_inline)) {
                return A(d[c]) * A(b[c]) * F::both(A(a[c])).slope;
            };
            auto to_u = [&](int64_t c) __attribute__((always_inline)) { return A(d[c]) * F::value(A(a[c])); };
            if (dg) put_row(dg, dg.row<X>(i), n, to_g);
            if (du) put_row(du, du.row<X>(i), n, to_u);
        });
    });
}

using namespace functions;
constinit std::array<Kernel<void(Out, In, In)>, ACTIVATIONS> gated_forward{{
    {"swiglu", forward<Silu>},
    {"geglu_tanh", forward<GeluTanh>},
    {"geglu_erf", forward<GeluErf>},
    {"quick_geglu", forward<QuickGelu>},
    {"relu2_glu", forward<Relu2>},
    {"reglu", forward<Relu>},
    {"sigmoid_glu", forward<Sigmoid>},
    {"tanh_glu", forward<Tanh>},
}};
constinit std::array<Kernel<void(Acc, Acc, In, In, In)>, ACTIVATIONS> gated_backward{{
    {"swiglu_backward", backward<Silu>},
    {"geglu_tanh_backward", backward<GeluTanh>},
    {"geglu_erf_backward", backward<GeluErf>},
    {"quick_geglu_backward", backward<QuickGelu>},
    {"relu2_glu_backward", backward<Relu2>},
    {"reglu_backward", backward<Relu>},
    {"sigmoid_glu_backward", backward<Sigmoid>},
    {"tanh_glu_backward", backward<Tanh>},
}};

Tensor gated(Activation f, Tensor g, Tensor u) {
    Tape& t = tape();
    auto& forward = gated_forward[size_t(f)];
    expect_same_shape(forward.name, g, u);
    Tensor y = t.tensor(forward.name, g.shape(), g.dtype(), join(forward.name, Rule::nonlinear, {g, u}));
    t.run(forward, y, g, u);
    t.on_backward({y}, [=, &t] { t.run(gated_backward[size_t(f)], t.into(g), t.into(u), t.grad(y), g, u); });
    return y;
}

Tensor gated(Activation f, Tensor gu) {
    check(gu.dim(-1) % 2 == 0, "%s: %s is %s; expected an even last dimension, gate and value side by side",
          gated_forward[size_t(f)].name, gu.name(), gu.shape().text().c_str());
    std::vector<Tensor> halves = split(gu, -1, 2);
    return gated(f, halves[0], halves[1]);
}

static std::vector<RegisterOp> register_gated() {
    std::vector<RegisterOp> ops;
    for (size_t f = 0; f < ACTIVATIONS; f++) {
        auto inputs = [](Case& c) {
            Dim T = c.rows("T");
            if (c.get("fused", 0)) return split(c.input({T, 2 * c["F"]}), -1, 2);
            Tensor g = c.input({T, c["F"]}), u = c.input({T, c["F"]});
            return std::vector<Tensor>{g, u};
        };
        auto build = [f, inputs](Case& c) -> std::vector<Tensor> {
            std::vector<Tensor> x = inputs(c);
            return {gated(Activation(f), x[0], x[1])};
        };
        auto reference = [f, inputs](Case& c) -> std::vector<Tensor> {
            std::vector<Tensor> x = inputs(c);
            return {mul(activation(Activation(f), x[0]), x[1])};
        };
        ops.emplace_back(Op{.name = gated_forward[f].name,
                            .build = build,
                            .reference = reference,
                            .cases = {"T=1 F=1", "T=7 F=100", "T=9 F=48 fused=1", "bench T=1024 F=2048"}});
    }
    return ops;
}
static const std::vector<RegisterOp> gated_ops = register_gated();

} // namespace nvl
