#include "kernels/norm/rmsnorm.h"

#include "kernels/cpu/rows.h"
#include "kernels/cpu/sums.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, Out r, In x, In w, double eps) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = x.cols();
        const X* k = w.row<X>(0);
        for_rows(x, [&](int64_t i) {
            const X* v = x.row<X>(i);
            X* to = y.row<X>(i);
            A squares = lane_sum<A>(C, [&](int64_t c) { return A(v[c]) * A(v[c]); });
            A q = 1 / std::sqrt(squares / A(C) + A(eps));
            *r.row<A>(i) = q;
            for (int64_t c = 0; c < C; c++) to[c] = X(A(v[c]) * q * A(k[c]));
        });
    });
}

static void backward(Acc dx, AccSum dw, In dy, In x, In w, In r) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = x.cols();
        const X* k = w.row<X>(0);
        auto row = [&](int64_t i, A* sums) {
            const X *v = x.row<X>(i), *d = dy.row<X>(i);
            A q = *r.row<A>(i);
            if (dw)
                for (int64_t c = 0; c < C; c++) sums[c] += A(d[c]) * A(v[c]) * q;
            if (!dx) return;
            A gx = lane_sum<A>(C, [&](int64_t c) { return A(d[c]) * A(k[c]) * A(v[c]); });
            A s = q * q * gx / A(C);
            put_row(dx, dx.row<X>(i), C, [&](int64_t c) { return q * (A(d[c]) * A(k[c]) - A(v[c]) * s); });
        };
        block_sums<A>(x.rows(), C, row, [&](const A* sums) {
            if (dw) put_row(dw, dw.row<A>(0), C, [&](int64_t c) { return sums[c]; });
        });
    });
}

constinit Kernel<void(Out, Out, In, In, double)> rmsnorm_forward{"rmsnorm", forward};
constinit Kernel<void(Acc, AccSum, In, In, In, In)> rmsnorm_backward{"rmsnorm_backward", backward};

Tensor rmsnorm(Tensor x, Tensor w, double eps) {
    check(w.shape().rank == 1 && x.dim(-1) == w.dim(0),
          "rmsnorm: %s is %s, the weight %s is %s; expected (%ld)", x.name(), x.shape().text().c_str(),
          w.name(), w.shape().text().c_str(), x.dim(-1).size);
    Tape& t = tape();
    Types type = join("rmsnorm", Rule::nonlinear, {x, w});
    Shape rows = x.shape();
    rows[-1] = 1; // one column, so that r has the rows of x whatever their number is
    Tensor y = t.tensor("rmsnorm", x.shape(), x.dtype(), type),
           r = t.tensor("rms", rows, sum_dtype(x.dtype()), type);
    t.run(rmsnorm_forward, y, r, x, w, eps);
    t.on_backward({y}, [=, &t] { t.run(rmsnorm_backward, t.into(x), t.into(w), t.grad(y), x, w, r); });
    return y;
}

static RegisterOp op{{
    .name = "rmsnorm",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Shape s = c.get("H", 0) ? Shape{T, c["H"], c["C"]} : Shape{T, c["C"]};
        Tensor x = c.input(s), w = c.weight({c["C"]}, 0.2, 1);
        return {rmsnorm(x, w)};
    },
    .cases = {"T=1 C=3", "T=1 C=64", "T=7 C=100", "T=129 C=48", "T=5 H=3 C=16", "bench T=4096 C=768",
              "bench T=4096 H=12 C=64"},
}};

} // namespace nvl
