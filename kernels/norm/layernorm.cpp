#include "kernels/norm/layernorm.h"

#include "kernels/norm/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, Out stats, In x, In w, In b, double eps, bool biased) {
    dispatch(x.dtype, [&]<class X> {
        for_rows(x, [&](int64_t i) {
            const X* v = x.row<X>(i);
            Moments<X> m = layer_moments(v, x.cols(), eps);
            sum_t<X>* s = stats.row<sum_t<X>>(i);
            s[0] = m.mean, s[1] = m.r;
            layer_apply(y.row<X>(i), v, w.row<X>(0), biased ? b.row<X>(0) : nullptr, x.cols(), m);
        });
    });
}

static void backward(Acc dx, AccSum dw, AccSum db, In dy, In x, In w, In stats) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = x.cols();
        const X* k = w.row<X>(0);
        auto row = [&](int64_t i, A* sums) {
            const X *v = x.row<X>(i), *d = dy.row<X>(i);
            const A* s = stats.row<A>(i);
            Moments<X> m{s[0], s[1]};
            if (sums) layer_weight_row(sums, sums + C, d, v, C, m);
            if (!dx) return;
            auto [g, gx] = layer_means(d, v, k, C, m);
            put_row(dx, dx.row<X>(i), C,
                    [&](int64_t c) { return m.r * (A(d[c]) * A(k[c]) - g - (A(v[c]) - m.mean) * m.r * gx); });
        };
        if (!dw && !db) return for_rows(x, [&](int64_t i) { row(i, nullptr); });
        block_sums<A>(x.rows(), 2 * C, row, [&](const A* sums) {
            if (dw) put_row(dw, dw.row<A>(0), C, [&](int64_t c) { return sums[c]; });
            if (db) put_row(db, db.row<A>(0), C, [&](int64_t c) { return sums[C + c]; });
        });
    });
}

constinit Kernel<void(Out, Out, In, In, In, double, bool)> layernorm_forward{"layernorm", forward};
constinit Kernel<void(Acc, AccSum, AccSum, In, In, In, In)> layernorm_backward{"layernorm_backward",
                                                                               backward};

Tensor layernorm(Tensor x, Tensor w, Tensor b, double eps) {
    check(w.shape().rank == 1 && x.dim(-1) == w.dim(0) && (!b || b.shape() == w.shape()),
          "layernorm: %s is %s, the weight is %s, the bias %s; expected (%ld)", x.name(),
          x.shape().text().c_str(), w.shape().text().c_str(), b ? b.shape().text().c_str() : "absent",
          x.dim(-1).size);
    Tape& t = tape();
    Types type =
        b ? join("layernorm", Rule::nonlinear, {x, w, b}) : join("layernorm", Rule::nonlinear, {x, w});
    Shape rows = x.shape();
    rows[-1] = 2;
    Tensor y = t.tensor("layernorm", x.shape(), x.dtype(), type),
           stats = t.tensor("moments", rows, sum_dtype(x.dtype()), type);
    t.run(layernorm_forward, y, stats, x, w, b ? b : w, eps, bool(b));
    t.on_backward(
        {y}, [=, &t] { t.run(layernorm_backward, t.into(x), t.into(w), t.into(b), t.grad(y), x, w, stats); });
    return y;
}

static RegisterOp op{{
    .name = "layernorm",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Shape s = c.get("H", 0) ? Shape{T, c["H"], c["C"]} : Shape{T, c["C"]};
        Tensor x = c.input(s), w = c.weight({c["C"]}, 0.2, 1);
        return {layernorm(x, w, c.get("bias", 1) ? c.weight({c["C"]}) : Tensor{})};
    },
    .cases = {"T=1 C=3", "T=7 C=100", "T=129 C=48", "T=7 C=33 bias=0", "T=5 H=3 C=16", "T=70 C=256",
              "T=3 C=1280", "T=2 C=4104", "T=2 C=8200", "bench T=4096 C=768"},
}};

} // namespace nvl
