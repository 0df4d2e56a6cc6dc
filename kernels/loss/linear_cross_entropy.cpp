#include "kernels/loss/linear_cross_entropy.h"

#include "kernels/cpu/rows.h"
#include "kernels/linear/linear.h"
#include "kernels/loss/loss_head.h"
#include "kernels/loss/softmax_row.h"
#include "kernels/pointwise/softcap.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static int64_t label_at(const LossHead& h, int64_t i) {
    return label_of(h.labels.as<int32_t>(), i, h.vocabulary(), "linear_cross_entropy");
}

template <class F> static void each_row(int64_t from, int64_t to, int64_t cols, F body) {
    parallel_for(to - from, row_grain(cols), [&](int64_t begin, int64_t end) {
        for (int64_t i = from + begin; i < from + end; i++) body(i);
    });
}

// Logits of rows [from, to), capped in place; and their losses, unless only gradients are wanted.
template <class A> static void forward_rows(const LossHead& h, int64_t from, int64_t to) {
    int64_t V = h.vocabulary();
    product(dense(h.logits, to - from, V), matrix(h.x).part(from, to), matrix(h.w).t());
    if (!h.loss && h.softcap == 0) return;
    each_row(from, to, V, [&](int64_t i) {
        A *l = h.logits.as<A>() + (i - from) * V, cap = A(h.softcap);
        if (cap != 0)
            for (int64_t v = 0; v < V; v++) l[v] = cap * vtanh(l[v] / cap);
        if (!h.loss) return;
        int64_t label = label_at(h, i);
        LogSum<A> sum{};
        if (label >= 0) sum = log_sum_exp(l, V);
        *h.lse.row<A>(i) = sum.lse();
        *h.token.row<A>(i) = label < 0 ? 0 : sum.loss(l[label]);
    });
}

template <class A> static RowGradient<A> row_gradient(const LossHead& h, int64_t i) {
    A dloss = *h.dloss.as<A>(), lse = *h.lse.row<A>(i), g = dloss + (h.dtoken ? *h.dtoken.row<A>(i) : A(0));
    A of_p = g + (h.dlse ? *h.dlse.row<A>(i) : A(0)) + 2 * A(h.z_loss) * lse * dloss;
    return {lse, of_p, g, label_at(h, i), A(h.softcap)};
}

// dx and dw of rows [from, to) from their logits, block by block of the vocabulary.
template <class X> static void backward_rows(const LossHead& h, int64_t from, int64_t to) {
    using A = sum_t<X>;
    int64_t V = h.vocabulary(), C = h.x.cols(), rows = to - from;
    Matrix x = matrix(h.x).part(from, to), w = matrix(h.w), sums = dense(h.sums, rows, C);
    for (int64_t v0 = 0, v1; v0 < V; v0 = v1) {
        v1 = std::min(V, v0 + LOSS_BLOCK_V);
        Matrix d = dense(h.block, rows, v1 - v0);
        each_row(from, to, v1 - v0, [&](int64_t i) {
            X* at = static_cast<X*>(d.data) + (i - from) * (v1 - v0);
            RowGradient<A> g = row_gradient<A>(h, i);
            if (g.label < 0)
                std::fill(at, at + (v1 - v0), X(0));
            else
                softmax_gradient(h.logits.as<A>() + (i - from) * V, at, v0, v1, g, {});
        });
        if (h.dx) product(sums, d, w.part(v0, v1), {.add = v0 > 0});
        if (h.dw) product(matrix(h.dw).part(v0, v1), d.t(), x, {.add = h.dw.add || from > 0});
    }
    if (!h.dx) return;
    each_row(from, to, C, [&](int64_t i) {
        const A* sum = h.sums.as<A>() + (i - from) * C;
        put_row(h.dx, h.dx.row<X>(i), C, [&](int64_t c) { return sum[c]; });
    });
}

template <class A> static void total(const LossHead& h) {
    double sum = 0;
    for (int64_t i = 0; i < h.token.rows(); i++) {
        double lse = *h.lse.row<A>(i);
        sum += *h.token.row<A>(i) + h.z_loss * lse * lse;
    }
    *h.loss.as<A>() = A(sum);
}

static void run(const LossHead& h) {
    int64_t T = h.x.rows(), chunk = h.logits.dim(0);
    dispatch(h.x.dtype, [&]<class X> {
        for (int64_t from = 0; from == 0 || from < T; from += chunk) { // no tokens: zeros to dw
            int64_t to = std::min(T, from + chunk);
            forward_rows<sum_t<X>>(h, from, to);
            if (h.dx || h.dw) backward_rows<X>(h, from, to);
        }
        if (h.loss) total<sum_t<X>>(h);
    });
}

using Slots = LossSlots<run>;

static double flops(const View& x, const View& w, const View& dx, const View& dw) {
    return 2 * double(x.rows()) * double(w.numel()) * (1 + (dx ? 1 : 0) + (dw ? 1 : 0));
}

constinit Kernel<void(Out, Out, Out, Out, In, In, In, double, double)> linear_cross_entropy_forward{
    "linear_cross_entropy", Slots::forward,
    [](Out, Out, Out, Out, In x, In w, In, double, double) { return flops(x, w, {}, {}); }};
constinit Kernel<void(Acc, AccSum, Out, Out, Out, In, In, In, In, In, In, In, double, double)>
    linear_cross_entropy_backward{"linear_cross_entropy_backward", Slots::backward,
                                  [](Acc dx, AccSum dw, Out, Out, Out, In, In, In, In x, In w, In, In, double,
                                     double) { return flops(x, w, dx, dw); }};
constinit Kernel<void(Out, Out, Out, Acc, AccSum, Out, Out, Out, In, In, In, In, double, double)>
    linear_cross_entropy_fused{"linear_cross_entropy_fused", Slots::fused,
                               [](Out, Out, Out, Acc dx, AccSum dw, Out, Out, Out, In, In x, In w, In, double,
                                  double) { return flops(x, w, dx, dw); }};

static void expect_head(const Tensor& x, const Tensor& w, const Tensor& labels) {
    check(x.shape().rank == 2 && w.shape().rank == 2 && x.dim(1) == w.dim(1) && x.dtype() == w.dtype(),
          "linear_cross_entropy: %s is %s %s, the head %s is %s %s; expected (T,C) and (V,C) of one type",
          x.name(), x.shape().text().c_str(), name_of(x.dtype()), w.name(), w.shape().text().c_str(),
          name_of(w.dtype()));
    check(labels.shape().rank == 1 && labels.dim(0) == x.dim(0) && labels.dtype() == Dtype::i32,
          "linear_cross_entropy: labels are %s %s; expected (%ld) i32", labels.shape().text().c_str(),
          name_of(labels.dtype()), x.dim(0).size);
    for (size_t axis = 0; axis < AXES; axis++)
        check(tape().size(Axis(axis)) == 1 || w.type[axis].kind == Kind::R || w.type[axis].kind == Kind::I,
              "linear_cross_entropy: the head is %s on axis %s; expected whole on every rank",
              w.type[axis].text().c_str(), axis_names[axis]);
}

// 64 MiB of logits, at least 256 rows, never more than there are tokens.
static int64_t chunk_rows(int64_t T, int64_t V, int64_t wanted) {
    if (wanted > 0) return std::max<int64_t>(1, std::min(T, wanted));
    int64_t rows = (int64_t(64) << 20) / (4 * V) / 16 * 16;
    return std::max<int64_t>(1, std::min(T, std::max<int64_t>(256, rows)));
}

CrossEntropy linear_cross_entropy(Tensor x, Tensor w, Tensor labels, const LossOptions& o) {
    expect_head(x, w, labels);
    Tape& t = tape();
    Types type = join("linear_cross_entropy", Rule::nonlinear, {x, w});
    Dtype sum = sum_dtype(x.dtype());
    int64_t chunk = chunk_rows(x.dim(0), w.dim(0), o.chunk_rows), V = w.dim(0), C = x.dim(1);
    auto logits = [=, &t] { return t.tensor("logits", {chunk, V}, sum); };
    auto block = [=, &t] { return t.tensor("dlogits", {chunk, std::min(V, LOSS_BLOCK_V)}, x.dtype()); };
    auto sums = [=, &t] { return t.tensor("dx_sums", {chunk, C}, sum); };
    Shape per_token{x.dim(0), 1};
    CrossEntropy r{t.tensor("loss", {1}, sum, summed(type)), t.tensor("token_loss", per_token, sum, type),
                   t.tensor("lse", per_token, sum, type)};
    if (o.fuse_backward && t.wants_gradients() && (x.buffer->needs_grad || w.buffer->needs_grad)) {
        r.loss.buffer->needs_grad = true;
        t.on_backward({r.loss}, [=, &t] {
            t.run(linear_cross_entropy_fused, r.loss, r.token, r.lse, t.into(x), t.into(w), logits(), block(),
                  sums(), t.grad(r.loss), x, w, labels, o.softcap, o.z_loss);
        });
        return r;
    }
    t.run(linear_cross_entropy_forward, r.loss, r.token, r.lse, logits(), x, w, labels, o.softcap, o.z_loss);
    t.on_backward({r.loss, r.token, r.lse}, [=, &t] {
        t.run(linear_cross_entropy_backward, t.into(x), t.into(w), logits(), block(), sums(), t.grad(r.loss),
              t.grad(r.token), t.grad(r.lse), x, w, labels, r.lse, o.softcap, o.z_loss);
    });
    return r;
}

static std::vector<Tensor> inputs(Case& c) {
    Dim T = c.rows("T");
    int64_t V = c["V"], ignore = c.get("ignore", 3);
    Tensor x = c.input({T, c["C"]}), w = c.weight({V, c["C"]}, 0.5);
    auto label = [=](int64_t i) { return int32_t(ignore && i % ignore == 1 ? -100 : i * 7 % V); };
    return {x, w, c.integers({T}, label)};
}
static std::vector<Tensor> outputs(const CrossEntropy& r) { return {r.loss, r.token, r.lse}; }
static LossOptions options(Case& c) {
    return {.softcap = double(c.get("cap", 0)),
            .z_loss = double(c.get("z", 0)) * 0.01,
            .chunk_rows = c.get("chunk", 0)};
}

static std::vector<Tensor> whole_build(Case& c) {
    auto in = inputs(c);
    return outputs(linear_cross_entropy(in[0], in[1], in[2], options(c)));
}
static std::vector<Tensor> whole_reference(Case& c) {
    auto in = inputs(c);
    Tensor logits = linear(in[0], in[1]);
    return outputs(cross_entropy(c.get("cap", 0) ? softcap(logits, double(c["cap"])) : logits, in[2]));
}
static RegisterOp whole{{
    .name = "linear_cross_entropy",
    .build = whole_build,
    .reference = whole_reference,
    .cases = {"T=1 C=3 V=2 ignore=0", "T=1 C=16 V=100 ignore=0", "T=11 C=20 V=67", "T=11 C=20 V=67 cap=5",
              "T=2 C=4 V=8195", "bench T=256 C=768 V=50304"},
    .f32_tolerance = 1e-5,
}};
static RegisterOp chunks{{
    .name = "linear_cross_entropy_chunks",
    .build = whole_build,
    .reference = whole_reference,
    .cases = {"T=11 C=20 V=67 chunk=4", "T=12 C=8 V=650 chunk=5", "T=3 C=4 V=4100 chunk=2"},
    .f32_tolerance = 1e-5,
    .exact_accumulation = false,
}};
static RegisterOp with_z_loss{{
    .name = "linear_cross_entropy_z",
    .build = whole_build,
    .cases = {"T=9 C=20 V=33 cap=3 z=5", "T=5 C=8 V=600 z=1"},
    .f32_tolerance = 1e-5,
}};
static RegisterOp fused_backward{{
    .name = "linear_cross_entropy_fused",
    .build = [](Case& c) -> std::vector<Tensor> {
        auto in = inputs(c);
        LossOptions o = options(c);
        o.fuse_backward = true;
        return {linear_cross_entropy(in[0], in[1], in[2], o).loss};
    },
    .reference = [](Case& c) -> std::vector<Tensor> {
        auto in = inputs(c);
        return {linear_cross_entropy(in[0], in[1], in[2], options(c)).loss};
    },
    .cases = {"T=1 C=3 V=2 ignore=0", "T=11 C=20 V=67 cap=5 z=5", "T=11 C=20 V=67", "T=2 C=4 V=4097",
              "T=1 C=5 V=9 ignore=1 z=1", "bench T=256 C=768 V=50304"},
    .f32_tolerance = 1e-5,
}};

} // namespace nvl
