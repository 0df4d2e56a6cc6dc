#include "kernels/pointwise/mul.h"

#include "kernels/cpu/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In a, In b) {
    dispatch(y.dtype, [&]<class X> {
        int64_t n = y.cols();
        for_rows(y, [&](int64_t i) {
            X* to = y.row<X>(i);
            const X *p = a.row<X>(i), *q = b.row<X>(i);
            for (int64_t c = 0; c < n; c++) to[c] = X(sum_t<X>(p[c]) * sum_t<X>(q[c]));
        });
    });
}

static void backward(Acc da, Acc db, In dy, In a, In b) {
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        for_rows(dy, [&](int64_t i) {
            const X *d = dy.row<X>(i), *p = a.row<X>(i), *q = b.row<X>(i);
            if (da) put_row(da, da.row<X>(i), dy.cols(), [&](int64_t c) { return A(d[c]) * A(q[c]); });
            if (db) put_row(db, db.row<X>(i), dy.cols(), [&](int64_t c) { return A(d[c]) * A(p[c]); });
        });
    });
}

constinit Kernel<void(Out, In, In)> mul_forward{"mul", forward};
constinit Kernel<void(Acc, Acc, In, In, In)> mul_backward{"mul_backward", backward};

Tensor mul(Tensor a, Tensor b) {
    expect_same_shape("mul", a, b);
    Tape& t = tape();
    Tensor y = t.tensor("mul", a.shape(), a.dtype(), join("mul", Rule::product, {a, b}));
    t.run(mul_forward, y, a, b);
    t.on_backward({y}, [=, &t] { t.run(mul_backward, t.into(a), t.into(b), t.grad(y), a, b); });
    return y;
}

static RegisterOp op{{
    .name = "mul",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Tensor a = c.input({T, c["C"]}), b = c.get("square", 0) ? a : c.input({T, c["C"]});
        return {mul(a, b)};
    },
    .cases = {"T=1 C=1", "T=7 C=100", "T=5 C=17 square=1", "bench T=4096 C=768"},
}};

} // namespace nvl
