#include "kernels/pointwise/concat_heads.h"

#include <algorithm>

#include "kernels/cpu/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In a, In b) {
    dispatch(y.dtype, [&]<class X> {
        int64_t H = y.dim(1), Da = a.cols(), Db = b.cols(), shared = b.dim(1) == H ? 1 : H;
        for_rows(y, [&](int64_t i) { // rows are heads of tokens
            X* to = y.row<X>(i);
            std::copy_n(a.row<X>(i), Da, to);
            std::copy_n(b.row<X>(i / shared), Db, to + Da);
        });
    });
}

static void backward(Acc da, Acc db, In dy) {
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t H = dy.dim(1), Db = db ? db.cols() : dy.cols() - da.cols(), Da = dy.cols() - Db;
        int64_t shared = db && db.dim(1) != H ? H : 1;
        parallel_for(dy.dim(0), row_grain(H * dy.cols()), [&](int64_t begin, int64_t end) {
            std::vector<A> sum(static_cast<size_t>(Db));
            for (int64_t i = begin * H; i < end * H; i++) {
                const X* d = dy.row<X>(i);
                if (da) put_row(da, da.row<X>(i), Da, [&](int64_t c) { return A(d[c]); });
                if (!db) continue;
                if (i % shared == 0) std::fill(sum.begin(), sum.end(), A(0));
                for (int64_t c = 0; c < Db; c++) sum[size_t(c)] += A(d[Da + c]);
                if (i % shared == shared - 1)
                    put_row(db, db.row<X>(i / shared), Db, [&](int64_t c) { return sum[size_t(c)]; });
            }
        });
    });
}

constinit Kernel<void(Out, In, In)> concat_heads_forward{"concat_heads", forward};
constinit Kernel<void(Acc, Acc, In)> concat_heads_backward{"concat_heads_backward", backward};

Tensor concat_heads(Tensor a, Tensor b) {
    check(a.shape().rank == 3 && b.shape().rank == 3 && a.dim(0) == b.dim(0) &&
              (b.dim(1) == a.dim(1) || b.dim(1) == 1),
          "concat_heads: %s and %s; expected (tokens, heads, ..) and as many heads, or one",
          a.shape().text().c_str(), b.shape().text().c_str());
    Tape& t = tape();
    Tensor y = t.tensor("concat_heads", {a.dim(0), a.dim(1), a.dim(2) + b.dim(2)}, a.dtype(),
                        join("concat_heads", Rule::nonlinear, {a, b}));
    t.run(concat_heads_forward, y, a, b);
    t.on_backward({y}, [=, &t] { t.run(concat_heads_backward, t.into(a), t.into(b), t.grad(y)); });
    return y;
}

static RegisterOp op{{
    .name = "concat_heads",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Tensor a = c.input({T, c["H"], c["A"]}), b = c.input({T, c.get("one", 0) ? 1 : c["H"], c["B"]});
        return {concat_heads(a, b)};
    },
    .cases = {"T=1 H=1 A=1 B=1", "T=7 H=3 A=12 B=8", "T=9 H=4 A=16 B=6 one=1",
              "bench T=4096 H=16 A=128 B=64 one=1"},
}};

} // namespace nvl
