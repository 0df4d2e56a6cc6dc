#include "kernels/position/qknorm_rope.h"

#include "kernels/norm/rmsnorm.h"
#include "kernels/norm/rows.h"
#include "kernels/position/rotate.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, Out r, In x, In w, In angles, double eps, double offset, Pairs pairs) {
    int64_t H = x.dim(1), D = x.dim(2), d = angles.cols();
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        const X* k = w.row<X>(0);
        A o = A(offset);
        parallel_for(x.dim(0), row_grain(H * D), [&](int64_t begin, int64_t end) {
            std::array<A, MAX_HEAD> normed;
            for (int64_t t = begin; t < end; t++)
                for (int64_t h = 0; h < H; h++) {
                    const X* v = head<X>(x, t, h);
                    A q = rms_inverse(v, D, eps);
                    *head<A>(r, t, h) = q;
                    A* n = normed.data();
                    for (int64_t c = 0; c < D; c++) n[c] = A(v[c]) * q * (o + A(k[c]));
                    rotate<1>(head<X>(y, t, h), n, angles.row<float>(t), d, D, pairs);
                }
        });
    });
}

static void backward(Acc dx, AccSum dw, In dy, In x, In w, In r, In angles, double offset, Pairs pairs) {
    int64_t H = x.dim(1), D = x.dim(2), d = angles.cols();
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        const X* k = w.row<X>(0);
        A o = A(offset);
        auto row = [&](int64_t i, A* sums) {
            int64_t t = i / H, h = i % H;
            std::array<A, MAX_HEAD> turned;
            A* g = turned.data();
            rotate<-1>(g, head<X>(dy, t, h), angles.row<float>(t), d, D, pairs);
            const X* v = head<X>(x, t, h);
            A q = *head<A>(r, t, h);
            if (sums) rms_weight_row(sums, g, v, D, q);
            if (!dx) return;
            A f = rms_factor(g, v, k, D, q, offset);
            put_row(dx, head<X>(dx, t, h), D,
                    [&](int64_t c) { return q * (g[c] * (o + A(k[c])) - A(v[c]) * f); });
        };
        if (!dw) return for_rows(x, [&](int64_t i) { row(i, nullptr); });
        block_sums<A>(x.dim(0) * H, D, row, [&](const A* sums) {
            put_row(dw, dw.row<A>(0), D, [&](int64_t c) { return sums[c]; });
        });
    });
}

constinit Kernel<void(Out, Out, In, In, In, double, double, Pairs)> qknorm_rope_forward{"qknorm_rope",
                                                                                        forward};
constinit Kernel<void(Acc, AccSum, In, In, In, In, In, double, Pairs)> qknorm_rope_backward{
    "qknorm_rope_backward", backward};

Tensor qknorm_rope(Tensor x, Tensor w, Tensor angles, double eps, double offset, Pairs pairs) {
    expect_heads("qknorm_rope", x, angles);
    check(w.shape().rank == 1 && x.dim(2) == w.dim(0),
          "qknorm_rope: %s is %s, the weight %s is %s; expected (%ld)", x.name(), x.shape().text().c_str(),
          w.name(), w.shape().text().c_str(), x.dim(2).size);
    Tape& t = tape();
    Types type = join("qknorm_rope", Rule::nonlinear, {x, w, angles});
    Tensor y = t.tensor("qknorm_rope", x.shape(), x.dtype(), type),
           r = t.tensor("rms", {x.dim(0), x.dim(1), 1}, sum_dtype(x.dtype()), type);
    t.run(qknorm_rope_forward, y, r, x, w, angles, eps, offset, pairs);
    t.on_backward({y}, [=, &t] {
        t.run(qknorm_rope_backward, t.into(x), t.into(w), t.grad(y), x, w, r, angles, offset, pairs);
    });
    return y;
}

static Tensor composition(Tensor x, Tensor w, Tensor angles, double eps, double offset, Pairs pairs) {
    return rope(rmsnorm(x, w, eps, offset), angles, pairs);
}
template <auto F> static std::vector<Tensor> build(Case& c) {
    Dim T = c.rows("T");
    RopeTable table = rope_table({.head_dim = c.get("d", c["D"])});
    Tensor angles = rope_angles(c.integers({T}, [](int64_t t) { return int32_t(t * 37 % 101); }), table);
    Tensor x = c.input({T, c["H"], c["D"]}), w = c.weight({c["D"]}, 0.2, 1);
    Pairs pairs = c.get("interleaved", 0) ? Pairs::interleaved : Pairs::half;
    return {F(x, w, angles, 1e-6, double(c.get("offset", 0)), pairs)};
}
static RegisterOp op{{
    .name = "qknorm_rope",
    .build = build<qknorm_rope>,
    .reference = build<composition>,
    .cases = {"T=1 H=1 D=2", "T=33 H=3 D=20", "T=5 H=2 D=33 d=20 offset=1", "T=7 H=3 D=20 interleaved=1",
              "T=33 H=4 D=64", "T=5 H=2 D=128", "T=3 H=2 D=256", "T=2 H=1 D=320 d=64",
              "T=5 H=2 D=128 interleaved=1", "bench T=256 H=12 D=64", "bench T=4096 H=16 D=128"},
}};

} // namespace nvl
