#include "kernels/pointwise/activation.h"

#include "kernels/cpu/rows.h"
#include "kernels/pointwise/functions.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

template <class F> static void forward(Out y, In x) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = x.cols();
        for_rows(x, [&](int64_t i) {
            const X* from = x.row<X>(i);
            X* to = y.row<X>(i);
            for (int64_t c = 0; c < n; c++) to[c] = X(F::value(A(from[c])));
        });
    });
}

template <class F> static void backward(Acc dx, In dy, In x) {
    if (!dx) return;
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = x.cols();
        for_rows(x, [&](int64_t i) {
            const X *v = x.row<X>(i), *d = dy.row<X>(i);
            put_row(
                dx, dx.row<X>(i), n, [&](int64_t c) __attribute__((always_inline)) {
                    return A(d[c]) * F::both(A(v[c])).slope;
                });
        });
    });
}

using namespace functions;
constinit std::array<Kernel<void(Out, In)>, ACTIVATIONS> activation_forward{{
    {"silu", forward<Silu>},
    {"gelu_tanh", forward<GeluTanh>},
    {"gelu_erf", forward<GeluErf>},
    {"quick_gelu", forward<QuickGelu>},
    {"relu2", forward<Relu2>},
    {"relu", forward<Relu>},
    {"sigmoid", forward<Sigmoid>},
    {"tanh", forward<Tanh>},
}};
constinit std::array<Kernel<void(Acc, In, In)>, ACTIVATIONS> activation_backward{{
    {"silu_backward", backward<Silu>},
    {"gelu_tanh_backward", backward<GeluTanh>},
    {"gelu_erf_backward", backward<GeluErf>},
    {"quick_gelu_backward", backward<QuickGelu>},
    {"relu2_backward", backward<Relu2>},
    {"relu_backward", backward<Relu>},
    {"sigmoid_backward", backward<Sigmoid>},
    {"tanh_backward", backward<Tanh>},
}};

Activation activation_named(const std::string& name) {
    using enum Activation;
    static const std::pair<const char*, Activation> known[] = {{"silu", silu},
                                                               {"swish", silu},
                                                               {"gelu", gelu_erf},
                                                               {"gelu_new", gelu_tanh},
                                                               {"gelu_fast", gelu_tanh},
                                                               {"gelu_pytorch_tanh", gelu_tanh},
                                                               {"relu2", relu2},
                                                               {"quick_gelu", quick_gelu},
                                                               {"relu", relu},
                                                               {"sigmoid", sigmoid},
                                                               {"tanh", tanh}};
    std::string names;
    for (auto& [n, f] : known) {
        if (name == n) return f;
        names += std::string(names.empty() ? "" : ", ") + n;
    }
    fail("activation \"%s\" is unknown; expected one of %s", name.c_str(), names.c_str());
}

Tensor activation(Activation f, Tensor x) {
    Tape& t = tape();
    auto& forward = activation_forward[size_t(f)];
    Tensor y = t.tensor(forward.name, x.shape(), x.dtype(), join(forward.name, Rule::nonlinear, {x}));
    t.run(forward, y, x);
    t.on_backward({y}, [=, &t] { t.run(activation_backward[size_t(f)], t.into(x), t.grad(y), x); });
    return y;
}

static std::vector<RegisterOp> register_activations() {
    std::vector<RegisterOp> ops;
    for (size_t f = 0; f < ACTIVATIONS; f++) {
        auto build = [f](Case& c) -> std::vector<Tensor> {
            Dim T = c.rows("T");
            return {activation(Activation(f), c.input({T, c["C"]}, 2))};
        };
        ops.emplace_back(Op{.name = activation_forward[f].name,
                            .build = build,
                            .cases = {"T=1 C=1", "T=7 C=100", "T=33 C=48", "bench T=1024 C=3072"}});
    }
    return ops;
}
static const std::vector<RegisterOp> activations = register_activations();

} // namespace nvl
