#include "kernels/moe/grouped_linear.h"

#include <algorithm>

#include "kernels/cpu/rows.h"
#include "kernels/linear/matrix.h"
#include "kernels/moe/dispatch.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static int64_t experts(const In& offsets) { return offsets.dim(0) - 1; }

/// body(expert, from, to) for the rows of each expert, cut where threads share them: rows do not depend on
/// each other, so no bit depends on the cuts.
template <class F> static void each_run(const In& offsets, F body) {
    const auto* o = offsets.as<int32_t>();
    int64_t E = experts(offsets);
    parallel_for(o[E], 32, [&](int64_t begin, int64_t end) {
        int64_t e = std::upper_bound(o, o + E, int32_t(begin)) - o - 1;
        for (; e < E && o[e] < end; e++)
            if (int64_t from = std::max<int64_t>(begin, o[e]), to = std::min<int64_t>(end, o[e + 1]);
                from < to)
                body(e, from, to);
    });
}

static void zero_tail(const View& y, const In& offsets) {
    dispatch(y.dtype, [&]<class X> {
        for (int64_t n = offsets.as<int32_t>()[experts(offsets)]; n < y.rows(); n++)
            std::fill_n(y.row<X>(n), y.cols(), X(0));
    });
}

static void forward(Out y, In x, In w, In b, In offsets, Weights order, bool biased) {
    each_run(offsets, [&](int64_t e, int64_t from, int64_t to) {
        View bias = biased ? View(b) : View{};
        if (biased) bias.data += e * b.stride[0] * size_of(b.dtype), bias.rank = 1, bias.shape[0] = b.dim(1);
        product(matrix(y).part(from, to), matrix(x).part(from, to), stacked_weight(w, e, order).t(),
                {.bias = bias});
    });
    zero_tail(y, offsets);
}

static void backward_dx(Acc dx, In dy, In w, In offsets, Weights order) {
    each_run(offsets, [&](int64_t e, int64_t from, int64_t to) {
        product(matrix(dx).part(from, to), matrix(dy).part(from, to), stacked_weight(w, e, order),
                {.add = dx.add});
    });
    if (!dx.add) zero_tail(dx, offsets);
}

/// body(expert) for all of them. A large expert is shared by the threads; the others go to one thread each.
template <class F> static void each_expert(const In& offsets, F body) {
    const auto* o = offsets.as<int32_t>();
    int64_t E = experts(offsets), share = o[E] / std::max(1, threads());
    auto large = [&](int64_t e) { return 2 * int64_t(o[e + 1] - o[e]) > share; };
    std::vector<int64_t> small;
    for (int64_t e = 0; e < E; e++)
        if (large(e))
            body(e);
        else
            small.push_back(e);
    parallel_for(int64_t(small.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) body(small[size_t(i)]);
    });
}

static void backward_dw(AccSum dw, In dy, In x, In offsets, Weights order) {
    const auto* o = offsets.as<int32_t>();
    each_expert(offsets, [&](int64_t e) {
        product(stacked_weight(dw, e, order), matrix(dy).part(o[e], o[e + 1]).t(),
                matrix(x).part(o[e], o[e + 1]), {.add = dw.add});
    });
}

static void backward_db(AccSum db, In dy, In offsets) {
    const auto* o = offsets.as<int32_t>();
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t F = dy.cols();
        parallel_for(experts(offsets), 1, [&](int64_t begin, int64_t end) {
            std::vector<A> sum(static_cast<size_t>(F));
            for (int64_t e = begin; e < end; e++) {
                std::fill(sum.begin(), sum.end(), A(0));
                for (int64_t n = o[e]; n < o[e + 1]; n++)
                    for (int64_t c = 0; c < F; c++) sum[size_t(c)] += A(dy.row<X>(n)[c]);
                put_row(db, db.row<A>(e), F, [&](int64_t c) { return sum[size_t(c)]; });
            }
        });
    });
}

// At full capacity every row has an expert.
static double flops(const View& rows, const View& w) {
    return 2 * double(rows.rows()) * double(w.dim(1)) * double(w.dim(2));
}

constinit Kernel<void(Out, In, In, In, In, Weights, bool)> grouped_forward{
    "grouped_linear", forward, [](Out, In x, In w, In, In, Weights, bool) { return flops(x, w); }};
constinit Kernel<void(Acc, In, In, In, Weights)> grouped_dx{
    "grouped_linear_dx", backward_dx, [](Acc, In dy, In w, In, Weights) { return flops(dy, w); }};
constinit Kernel<void(AccSum, In, In, In, Weights)> grouped_dw{
    "grouped_linear_dw", backward_dw, [](AccSum dw, In dy, In, In, Weights) { return flops(dy, dw); }};
constinit Kernel<void(AccSum, In, In)> grouped_db{"grouped_linear_db", backward_db};

Tensor grouped_linear(Tensor x, Tensor w, Tensor b, Tensor offsets, Weights order) {
    bool rows_are_outputs = order == Weights::out_in;
    check(w.shape().rank == 3 && x.shape().rank == 2 && x.dim(1) == w.dim(rows_are_outputs ? 2 : 1),
          "grouped_linear: %s is %s and %s is %s; expected (experts, outputs, inputs)%s", x.name(),
          x.shape().text().c_str(), w.name(), w.shape().text().c_str(),
          rows_are_outputs ? "" : " with outputs and inputs the other way round");
    int64_t E = w.dim(0), F = w.dim(rows_are_outputs ? 1 : 2);
    check(offsets.dtype() == Dtype::i32 && offsets.shape() == Shape{E + 1},
          "grouped_linear: offsets are %s; expected (%ld) for %ld experts", offsets.shape().text().c_str(),
          E + 1, E);
    check(!b || b.shape() == Shape({E, F}), "grouped_linear: the bias is %s; expected (%ld,%ld)",
          b.shape().text().c_str(), E, F);
    Tape& t = tape();
    Tensor y =
        t.tensor("grouped_linear", {x.dim(0), F}, x.dtype(), join("grouped_linear", Rule::nonlinear, {x, w}));
    t.run(grouped_forward, y, x, w, b ? b : w, offsets, order, bool(b));
    t.on_backward({y}, [=, &t] {
        t.run(grouped_dx, t.into(x), t.grad(y), w, offsets, order);
        t.run(grouped_dw, t.into(w), t.grad(y), x, offsets, order);
        if (b) t.run(grouped_db, t.into(b), t.grad(y), offsets);
    });
    return y;
}

static RegisterOp op{{
    .name = "grouped_linear",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim R = c.rows("R");
        int64_t E = c["E"], most = c.get("used", c["R"]);
        Tensor offsets = c.integers({E + 1}, [=](int64_t e) { // uneven, some without rows
            return e == E ? int32_t(most) : int32_t(most * e * e / (E * E) / 3 * 3);
        });
        bool in_out = c.get("in_out", 0);
        Tensor x = c.input({R, c["C"]});
        Tensor w = c.weight(in_out ? Shape{E, c["C"], c["F"]} : Shape{E, c["F"], c["C"]}), b;
        if (c.get("bias", 0)) b = c.weight({E, c["F"]});
        return {grouped_linear(x, w, b, offsets, in_out ? Weights::in_out : Weights::out_in)};
    },
    .cases = {"R=1 E=1 C=3 F=2", "R=20 E=6 C=17 F=9", "R=70 E=4 C=32 F=48 bias=1",
              "R=45 E=3 C=24 F=40 in_out=1 bias=1", "R=30 E=3 C=8 F=16 used=21",
              "bench R=8192 E=32 C=512 F=256"},
}};

} // namespace nvl
