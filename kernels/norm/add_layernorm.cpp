#include "kernels/norm/add_layernorm.h"

#include "kernels/norm/layernorm.h"
#include "kernels/norm/rows.h"
#include "kernels/pointwise/add.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out s, Out y, Out stats, In a, In b, In w, In bias, double eps, bool biased) {
    dispatch(s.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = s.cols();
        for_rows(s, [&](int64_t i) {
            const X *p = a.row<X>(i), *q = b.row<X>(i);
            X* v = s.row<X>(i);
            for (int64_t c = 0; c < n; c++) v[c] = X(A(p[c]) + A(q[c]));
            Moments<X> m = layer_moments(v, n, eps);
            A* to = stats.row<A>(i);
            to[0] = m.mean, to[1] = m.r;
            layer_apply(y.row<X>(i), v, w.row<X>(0), biased ? bias.row<X>(0) : nullptr, n, m);
        });
    });
}

static void backward(Acc da, Acc db, AccSum dw, AccSum dbias, In ds, In dy, In s, In w, In stats,
                     bool residual) {
    dispatch(s.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = s.cols();
        const X* k = w.row<X>(0);
        auto row = [&](int64_t i, A* sums) {
            const X *v = s.row<X>(i), *d = dy.row<X>(i), *e = ds.row<X>(i);
            const A* saved = stats.row<A>(i);
            Moments<X> m{saved[0], saved[1]};
            if (sums) layer_weight_row(sums, sums + C, d, v, C, m);
            if (!da && !db) return;
            auto [g, gx] = layer_means(d, v, k, C, m);
            auto norm = [&, g = g, gx = gx](int64_t c) {
                return m.r * (A(d[c]) * A(k[c]) - g - (A(v[c]) - m.mean) * m.r * gx);
            };
            if (residual)
                put_both<X>(da, db, i, C, [&](int64_t c) { return A(e[c]) + norm(c); });
            else
                put_both<X>(da, db, i, C, norm);
        };
        if (!dw && !dbias) return for_rows(s, [&](int64_t i) { row(i, nullptr); });
        block_sums<A>(s.rows(), 2 * C, row, [&](const A* sums) {
            if (dw) put_row(dw, dw.row<A>(0), C, [&](int64_t c) { return sums[c]; });
            if (dbias) put_row(dbias, dbias.row<A>(0), C, [&](int64_t c) { return sums[C + c]; });
        });
    });
}

constinit Kernel<void(Out, Out, Out, In, In, In, In, double, bool)> add_layernorm_forward{"add_layernorm",
                                                                                          forward};
constinit Kernel<void(Acc, Acc, AccSum, AccSum, In, In, In, In, In, bool)> add_layernorm_backward{
    "add_layernorm_backward", backward};

AddNorm add_layernorm(Tensor a, Tensor b, Tensor w, Tensor bias, double eps) {
    expect_same_shape("add_layernorm", a, b);
    check(w.shape().rank == 1 && a.dim(-1) == w.dim(0) && (!bias || bias.shape() == w.shape()),
          "add_layernorm: %s is %s, the weight is %s, the bias %s; expected (%ld)", a.name(),
          a.shape().text().c_str(), w.shape().text().c_str(), bias ? bias.shape().text().c_str() : "absent",
          a.dim(-1).size);
    Tape& t = tape();
    const char* name = "add_layernorm";
    Types type = bias ? join(name, Rule::nonlinear, {a, b, w, bias}) : join(name, Rule::nonlinear, {a, b, w});
    Shape rows = a.shape();
    rows[-1] = 2;
    Tensor s = t.tensor("residual", a.shape(), a.dtype(), type),
           y = t.tensor("layernorm", a.shape(), a.dtype(), type),
           stats = t.tensor("moments", rows, sum_dtype(a.dtype()), type);
    t.run(add_layernorm_forward, s, y, stats, a, b, w, bias ? bias : w, eps, bool(bias));
    t.on_backward({s, y}, [=, &t] {
        bool residual = t.has_grad(s);
        Tensor dy = t.grad(y), ds = residual ? t.grad(s) : dy;
        t.run(add_layernorm_backward, t.into(a), t.into(b), t.into(w), t.into(bias), ds, dy, s, w, stats,
              residual);
    });
    return {s, y};
}

static AddNorm composition(Tensor a, Tensor b, Tensor w, Tensor bias, double eps) {
    Tensor s = add(a, b);
    return {s, layernorm(s, w, bias, eps)};
}
template <auto F> static std::vector<Tensor> build(Case& c) {
    Dim T = c.rows("T");
    Tensor a = c.input({T, c["C"]}), b = c.input({T, c["C"]}), w = c.weight({c["C"]}, 0.2, 1);
    auto [s, y] = F(a, b, w, c.get("bias", 1) ? c.weight({c["C"]}) : Tensor{}, 1e-5);
    if (c.get("last", 0)) return {y};
    return {s, y};
}
static RegisterOp op{{
    .name = "add_layernorm",
    .build = build<add_layernorm>,
    .reference = build<composition>,
    .cases = {"T=1 C=3", "T=7 C=100", "T=67 C=48 bias=0", "T=3 C=20 last=1", "T=3 C=1600",
              "bench T=256 C=768", "bench T=4096 C=768"},
}};

} // namespace nvl
