#include "kernels/pointwise/scale_rows.h"

#include "kernels/cpu/rows.h"
#include "kernels/cpu/sums.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In x, In g) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = x.cols();
        for_rows(x, [&](int64_t t) {
            const X* v = x.row<X>(t);
            X* to = y.row<X>(t);
            A f = A(*g.row<X>(t));
            for (int64_t c = 0; c < C; c++) to[c] = X(f * A(v[c]));
        });
    });
}

static void backward(Acc dx, Acc dg, In dy, In x, In g) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = x.cols();
        for_rows(x, [&](int64_t t) {
            const X *v = x.row<X>(t), *d = dy.row<X>(t);
            A f = A(*g.row<X>(t));
            if (dg) dg.put(*dg.row<X>(t), lane_sum<A>(C, [&](int64_t c) { return A(d[c]) * A(v[c]); }));
            if (dx) put_row(dx, dx.row<X>(t), C, [&](int64_t c) { return f * A(d[c]); });
        });
    });
}

constinit Kernel<void(Out, In, In)> scale_rows_forward{"scale_rows", forward};
constinit Kernel<void(Acc, Acc, In, In, In)> scale_rows_backward{"scale_rows_backward", backward};

Tensor scale_rows(Tensor x, Tensor g) {
    check(x.shape().rank == 2 && g.shape() == Shape({x.dim(0), 1}),
          "scale_rows: %s is %s, the factors are %s", x.name(), x.shape().text().c_str(),
          g.shape().text().c_str());
    Tape& t = tape();
    Tensor y = t.tensor("scale_rows", x.shape(), x.dtype(), join("scale_rows", Rule::nonlinear, {x, g}));
    t.run(scale_rows_forward, y, x, g);
    t.on_backward({y}, [=, &t] { t.run(scale_rows_backward, t.into(x), t.into(g), t.grad(y), x, g); });
    return y;
}

static RegisterOp op{{
    .name = "scale_rows",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Tensor x = c.input({T, c["C"]}), g = c.input({T, 1});
        return {scale_rows(x, g)};
    },
    .cases = {"T=1 C=1", "T=7 C=33", "T=9 C=48", "bench T=4096 C=2048"},
}};

} // namespace nvl
