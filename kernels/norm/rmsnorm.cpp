#include "kernels/norm/rmsnorm.h"

#include "kernels/norm/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, Out r, In x, In w, double eps, double offset) {
    dispatch(x.dtype, [&]<class X> {
        for_rows(x, [&](int64_t i) {
            const X* v = x.row<X>(i);
            sum_t<X> q = rms_inverse(v, x.cols(), eps);
            *r.row<sum_t<X>>(i) = q;
            rms_apply(y.row<X>(i), v, w.row<X>(0), x.cols(), q, offset);
        });
    });
}

static void backward(Acc dx, AccSum dw, In dy, In x, In w, In r, double offset) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = x.cols();
        const X* k = w.row<X>(0);
        A o = A(offset);
        auto row = [&](int64_t i, A* sums) {
            const X *v = x.row<X>(i), *d = dy.row<X>(i);
            A q = *r.row<A>(i);
            if (dw) rms_weight_row(sums, d, v, C, q);
            if (!dx) return;
            A f = rms_factor(d, v, k, C, q, offset);
            put_row(dx, dx.row<X>(i), C,
                    [&](int64_t c) { return q * (A(d[c]) * (o + A(k[c])) - A(v[c]) * f); });
        };
        if (!dw) return for_rows(x, [&](int64_t i) { row(i, nullptr); });
        block_sums<A>(x.rows(), C, row, [&](const A* sums) {
            put_row(dw, dw.row<A>(0), C, [&](int64_t c) { return sums[c]; });
        });
    });
}

constinit Kernel<void(Out, Out, In, In, double, double)> rmsnorm_forward{"rmsnorm", forward};
constinit Kernel<void(Acc, AccSum, In, In, In, In, double)> rmsnorm_backward{"rmsnorm_backward", backward};

Tensor rmsnorm(Tensor x, Tensor w, double eps, double offset) {
    check(w.shape().rank == 1 && x.dim(-1) == w.dim(0),
          "rmsnorm: %s is %s, the weight %s is %s; expected (%ld)", x.name(), x.shape().text().c_str(),
          w.name(), w.shape().text().c_str(), x.dim(-1).size);
    Tape& t = tape();
    Types type = join("rmsnorm", Rule::nonlinear, {x, w});
    Shape rows = x.shape();
    rows[-1] = 1; // one column, so that r has the rows of x whatever their number is
    Tensor y = t.tensor("rmsnorm", x.shape(), x.dtype(), type),
           r = t.tensor("rms", rows, sum_dtype(x.dtype()), type);
    t.run(rmsnorm_forward, y, r, x, w, eps, offset);
    t.on_backward({y},
                  [=, &t] { t.run(rmsnorm_backward, t.into(x), t.into(w), t.grad(y), x, w, r, offset); });
    return y;
}

static RegisterOp op{{
    .name = "rmsnorm",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Shape s = c.get("H", 0) ? Shape{T, c["H"], c["C"]} : Shape{T, c["C"]};
        Tensor x = c.input(s), w = c.weight({c["C"]}, 0.2, 1);
        return {rmsnorm(x, w, 1e-6, double(c.get("offset", 0)))};
    },
    .cases = {"T=1 C=3", "T=1 C=64", "T=7 C=100", "T=129 C=48", "T=5 C=40 offset=1", "T=5 H=3 C=16",
              "T=70 C=256", "T=3 C=2048", "T=2 C=4104", "T=2 C=8200", "bench T=4096 C=768",
              "bench T=4096 H=12 C=64"},
}};

} // namespace nvl
