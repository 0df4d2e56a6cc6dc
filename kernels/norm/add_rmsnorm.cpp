#include "kernels/norm/add_rmsnorm.h"

#include "kernels/norm/rmsnorm.h"
#include "kernels/norm/rows.h"
#include "kernels/pointwise/add.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out s, Out y, Out r, In a, In b, In w, double eps, double offset) {
    dispatch(s.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = s.cols();
        for_rows(s, [&](int64_t i) {
            const X *p = a.row<X>(i), *q = b.row<X>(i);
            X* v = s.row<X>(i);
            for (int64_t c = 0; c < n; c++) v[c] = X(A(p[c]) + A(q[c]));
            A inverse = rms_inverse(v, n, eps);
            *r.row<A>(i) = inverse;
            rms_apply(y.row<X>(i), v, w.row<X>(0), n, inverse, offset);
        });
    });
}

static void backward(Acc da, Acc db, AccSum dw, In ds, In dy, In s, In w, In r, double offset,
                     bool residual) {
    dispatch(s.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = s.cols();
        const X* k = w.row<X>(0);
        A o = A(offset);
        auto row = [&](int64_t i, A* sums) {
            const X *v = s.row<X>(i), *d = dy.row<X>(i), *e = ds.row<X>(i);
            A q = *r.row<A>(i);
            if (sums) rms_weight_row(sums, d, v, C, q);
            if (!da && !db) return;
            A f = rms_factor(d, v, k, C, q, offset);
            auto norm = [&](int64_t c) { return q * (A(d[c]) * (o + A(k[c])) - A(v[c]) * f); };
            if (residual)
                put_both<X>(da, db, i, C, [&](int64_t c) { return A(e[c]) + norm(c); });
            else
                put_both<X>(da, db, i, C, norm);
        };
        if (!dw) return for_rows(s, [&](int64_t i) { row(i, nullptr); });
        block_sums<A>(s.rows(), C, row, [&](const A* sums) {
            put_row(dw, dw.row<A>(0), C, [&](int64_t c) { return sums[c]; });
        });
    });
}

constinit Kernel<void(Out, Out, Out, In, In, In, double, double)> add_rmsnorm_forward{"add_rmsnorm", forward};
constinit Kernel<void(Acc, Acc, AccSum, In, In, In, In, In, double, bool)> add_rmsnorm_backward{
    "add_rmsnorm_backward", backward};

AddNorm add_rmsnorm(Tensor a, Tensor b, Tensor w, double eps, double offset) {
    expect_same_shape("add_rmsnorm", a, b);
    check(w.shape().rank == 1 && a.dim(-1) == w.dim(0),
          "add_rmsnorm: %s is %s, the weight %s is %s; expected (%ld)", a.name(), a.shape().text().c_str(),
          w.name(), w.shape().text().c_str(), a.dim(-1).size);
    Tape& t = tape();
    Types type = join("add_rmsnorm", Rule::nonlinear, {a, b, w});
    Shape rows = a.shape();
    rows[-1] = 1;
    Tensor s = t.tensor("residual", a.shape(), a.dtype(), type),
           y = t.tensor("rmsnorm", a.shape(), a.dtype(), type),
           r = t.tensor("rms", rows, sum_dtype(a.dtype()), type);
    t.run(add_rmsnorm_forward, s, y, r, a, b, w, eps, offset);
    t.on_backward({s, y}, [=, &t] {
        bool residual = t.has_grad(s);
        Tensor dy = t.grad(y), ds = residual ? t.grad(s) : dy;
        t.run(add_rmsnorm_backward, t.into(a), t.into(b), t.into(w), ds, dy, s, w, r, offset, residual);
    });
    return {s, y};
}

static AddNorm composition(Tensor a, Tensor b, Tensor w, double eps, double offset) {
    Tensor s = add(a, b);
    return {s, rmsnorm(s, w, eps, offset)};
}
template <auto F> static std::vector<Tensor> build(Case& c) {
    Dim T = c.rows("T");
    Tensor a = c.input({T, c["C"]}), b = c.get("same", 0) ? a : c.input({T, c["C"]});
    Tensor w = c.weight({c["C"]}, 0.2, 1);
    auto [s, y] = F(a, b, w, 1e-6, double(c.get("offset", 0)));
    if (c.get("last", 0)) return {y};
    return {s, y};
}
static RegisterOp op{{
    .name = "add_rmsnorm",
    .build = build<add_rmsnorm>,
    .reference = build<composition>,
    .cases = {"T=1 C=3", "T=7 C=100", "T=67 C=48 offset=1", "T=3 C=20 last=1", "T=3 C=17 same=1",
              "T=3 C=1536", "T=2 C=4104", "T=2 C=8200", "bench T=4096 C=768"},
}};

} // namespace nvl
