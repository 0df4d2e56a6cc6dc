#include "kernels/pointwise/add.h"

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
            for (int64_t c = 0; c < n; c++) to[c] = X(sum_t<X>(p[c]) + sum_t<X>(q[c]));
        });
    });
}

constinit Kernel<void(Out, In, In)> add_forward{"add", forward};

Tensor add(Tensor a, Tensor b) {
    expect_same_shape("add", a, b);
    Tape& t = tape();
    Tensor y = t.tensor("add", a.shape(), a.dtype(), join("add", Rule::sum, {a, b}));
    t.run(add_forward, y, a, b);
    t.on_backward({y}, [=, &t] {
        t.run(accumulate, t.into(a), t.grad(y));
        t.run(accumulate, t.into(b), t.grad(y));
    });
    return y;
}

static RegisterOp op{{
    .name = "add",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Tensor a = c.input({T, c["C"]}), b = c.input({T, c["C"]});
        return {add(a, b)};
    },
    .cases = {"T=1 C=1", "T=3 C=5", "T=7 C=1000", "T=65 C=64", "bench T=4096 C=768"},
}};

} // namespace nvl
