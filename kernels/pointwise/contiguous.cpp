#include "kernels/pointwise/contiguous.h"

#include "kernels/cpu/rows.h"
#include "kernels/spec.h"

namespace nvl {

// Rows may have a stride inside, which View::row does not know about: it gives the first element, `step` the
// rest.
static int64_t step(const View& v) { return v.rank ? v.stride[size_t(v.rank - 1)] : 1; }

static void forward(Out y, In x) {
    dispatch(x.dtype, [&]<class X> {
        int64_t by = step(x);
        int64_t n = x.cols();
        for_rows(x, [&](int64_t i) {
            const X* from = x.row<X>(i);
            X* to = y.row<X>(i);
            if (by == 1)
                std::copy_n(from, n, to);
            else
                for (int64_t c = 0; c < n; c++) to[c] = from[c * by];
        });
    });
}

static void backward(Acc dx, In dy) {
    if (!dx) return;
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t by = step(dx);
        int64_t n = dy.cols();
        for_rows(dy, [&](int64_t i) {
            const X* d = dy.row<X>(i);
            X* to = dx.row<X>(i);
            if (by == 1) return put_row(dx, to, n, [&](int64_t c) { return A(d[c]); });
            for (int64_t c = 0; c < n; c++) dx.put(to[c * by], A(d[c]));
        });
    });
}

constinit Kernel<void(Out, In)> contiguous_forward{"contiguous", forward, nullptr, {.any_stride = true}};
constinit Kernel<void(Acc, In)> contiguous_backward{
    "contiguous_backward", backward, nullptr, {.any_stride = true}};

Tensor contiguous(Tensor x) {
    Tape& t = tape();
    Tensor y = t.tensor("contiguous", x.shape(), x.dtype(), x.type);
    t.run(contiguous_forward, y, x);
    t.on_backward({y}, [=, &t] { t.run(contiguous_backward, t.into(x), t.grad(y)); });
    return y;
}

static RegisterOp op{{
    .name = "contiguous",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Tensor x = c.input({T, c["C"]});
        if (c.get("transpose", 0)) x = transpose(reshape(x, {T, c["C"] / 3, 3}), 1, 2);
        return {contiguous(x)};
    },
    .cases = {"T=1 C=1", "T=7 C=100", "T=5 C=21 transpose=1", "T=2 C=210 transpose=1", "bench T=4096 C=768"},
}};

} // namespace nvl
