#include "kernels/loss/linear_cross_entropy.h"

#include "kernels/cpu/rows.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/matrix.h"
#include "kernels/loss/softmax_row.h"
#include "kernels/pointwise/softcap.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

// What the three kernels share. Views that a kernel has not got are empty.
struct Head {
    View x, w, labels, chunk;
    double softcap, z_loss;
    View loss, token, lse;    // written by the forward part
    View dloss, dtoken, dlse; // read by the backward part
    Acc dx{};
    AccSum dw{};
};

static Matrix rows_of(const View& v, int64_t from, int64_t to) { return matrix(v).part(from, to); }

// Logits of rows [from, to) into the chunk.
static Matrix logits(const Head& h, int64_t from, int64_t to) {
    Matrix l{h.chunk.data, to - from, h.w.dim(0), h.w.dim(0), false, h.chunk.dtype};
    product(l, rows_of(h.x, from, to), matrix(h.w).t());
    return l;
}

// Softcap in place, then the loss of one row.
template <class A> static void forward_row(const Head& h, A* l, int64_t i) {
    int64_t V = h.w.dim(0), label = label_of(h.labels.as<int32_t>(), i, V, "linear_cross_entropy");
    LogSum<A> sum{};
    if (label >= 0) sum = log_sum_exp(l, V);
    *h.lse.row<A>(i) = sum.lse();
    *h.token.row<A>(i) = label < 0 ? 0 : sum.loss(l[label]);
}

// The gradient of one row, over its logits; in the type X of x.
template <class X, class A> static void backward_row(const Head& h, A* l, int64_t i) {
    int64_t V = h.w.dim(0), label = label_of(h.labels.as<int32_t>(), i, V, "linear_cross_entropy");
    if (label < 0) {
        std::memset(static_cast<void*>(l), 0, size_t(V) * sizeof(X));
        return;
    }
    A dloss = *h.dloss.as<A>(), lse = *h.lse.row<A>(i), g = dloss + (h.dtoken ? *h.dtoken.row<A>(i) : A(0));
    A of_p = g + (h.dlse ? *h.dlse.row<A>(i) : A(0)) + 2 * A(h.z_loss) * lse * dloss;
    softmax_gradient(l, reinterpret_cast<X*>(l), V, RowGradient<A>{lse, of_p, g, label, A(h.softcap)},
                     StoreBlock<X>{});
}

// A row of gradients begins where its row of logits began.
static void add_gradients(const Head& h, Matrix l, int64_t from, int64_t to) {
    Matrix d{l.data, l.rows, l.cols, l.ld * size_of(l.dtype) / size_of(h.x.dtype), false, h.x.dtype};
    if (h.dx) product(rows_of(h.dx, from, to), d, matrix(h.w), {.add = h.dx.add});
    if (h.dw) product(matrix(h.dw), d.t(), rows_of(h.x, from, to), {.add = h.dw.add || from > 0});
}

static void total(const Head& h) {
    dispatch(h.token.dtype, [&]<class A> {
        double sum = 0;
        for (int64_t i = 0; i < h.token.rows(); i++) {
            double lse = *h.lse.row<A>(i);
            sum += *h.token.row<A>(i) + h.z_loss * lse * lse;
        }
        *h.loss.as<A>() = A(sum);
    });
}

static void run(const Head& h) {
    bool losses = bool(h.loss), gradients = h.dx || h.dw;
    int64_t T = h.x.rows(), V = h.w.dim(0);
    dispatch(h.x.dtype, [&]<class X> {
        using A = sum_t<X>;
        for (int64_t from = 0; from == 0 || from < T; from += h.chunk.dim(0)) { // T = 0 writes zeros to dw
            int64_t to = std::min(T, from + h.chunk.dim(0));
            Matrix l = logits(h, from, to);
            parallel_for(to - from, row_grain(V), [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; i++) {
                    A* row = static_cast<A*>(l.data) + i * V;
                    if (h.softcap != 0) {
                        A cap = A(h.softcap);
                        for (int64_t v = 0; v < V; v++) row[v] = cap * vtanh(row[v] / cap);
                    }
                    if (losses) forward_row(h, row, from + i);
                    if (gradients) backward_row<X>(h, row, from + i);
                }
            });
            if (gradients) add_gradients(h, l, from, to);
        }
    });
    if (losses) total(h);
}

static void forward(Out loss, Out token, Out lse, Out chunk, In x, In w, In labels, double softcap,
                    double z_loss) {
    run({x, w, labels, chunk, softcap, z_loss, loss, token, lse, {}, {}, {}});
}
static void backward(Acc dx, AccSum dw, Out chunk, In dloss, In dtoken, In dlse, In x, In w, In labels,
                     In lse, double softcap, double z_loss) {
    run({x, w, labels, chunk, softcap, z_loss, {}, {}, lse, dloss, dtoken, dlse, dx, dw});
}
static void fused(Out loss, Out token, Out lse, Acc dx, AccSum dw, Out chunk, In dloss, In x, In w, In labels,
                  double softcap, double z_loss) {
    run({x, w, labels, chunk, softcap, z_loss, loss, token, lse, dloss, {}, {}, dx, dw});
}

static double flops(const View& x, const View& w, const View& dx, const View& dw) {
    return 2 * double(x.rows()) * double(w.numel()) * (1 + (dx ? 1 : 0) + (dw ? 1 : 0));
}

static constinit Kernel<void(Out, Out, Out, Out, In, In, In, double, double)> head_forward{
    "linear_cross_entropy", forward,
    [](Out, Out, Out, Out, In x, In w, In, double, double) { return flops(x, w, {}, {}); }};
static constinit Kernel<void(Acc, AccSum, Out, In, In, In, In, In, In, In, double, double)> head_backward{
    "linear_cross_entropy_backward", backward,
    [](Acc dx, AccSum dw, Out, In, In, In, In x, In w, In, In, double, double) {
        return flops(x, w, dx, dw);
    }};
static constinit Kernel<void(Out, Out, Out, Acc, AccSum, Out, In, In, In, In, double, double)> head_fused{
    "linear_cross_entropy_fused", fused,
    [](Out, Out, Out, Acc dx, AccSum dw, Out, In, In x, In w, In, double, double) {
        return flops(x, w, dx, dw);
    }};

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
    Shape per_token{x.dim(0), 1}, chunk{chunk_rows(x.dim(0), w.dim(0), o.chunk_rows), w.dim(0)};
    CrossEntropy r{t.tensor("loss", {1}, sum, summed(type)), t.tensor("token_loss", per_token, sum, type),
                   t.tensor("lse", per_token, sum, type)};
    if (o.fuse_backward && t.wants_gradients() && (x.buffer->needs_grad || w.buffer->needs_grad)) {
        r.loss.buffer->needs_grad = true;
        t.on_backward({r.loss}, [=, &t] {
            Tensor logits = t.tensor("logits", chunk, sum);
            t.run(head_fused, r.loss, r.token, r.lse, t.into(x), t.into(w), logits, t.grad(r.loss), x, w,
                  labels, o.softcap, o.z_loss);
        });
        return r;
    }
    t.run(head_forward, r.loss, r.token, r.lse, t.tensor("logits", chunk, sum), x, w, labels, o.softcap,
          o.z_loss);
    t.on_backward({r.loss, r.token, r.lse}, [=, &t] {
        Tensor logits = t.tensor("logits", chunk, sum);
        t.run(head_backward, t.into(x), t.into(w), logits, t.grad(r.loss), t.grad(r.token), t.grad(r.lse), x,
              w, labels, r.lse, o.softcap, o.z_loss);
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
              "bench T=256 C=768 V=50304"},
    .f32_tolerance = 1e-5,
}};
static RegisterOp chunks{{
    .name = "linear_cross_entropy_chunks",
    .build = whole_build,
    .reference = whole_reference,
    .cases = {"T=11 C=20 V=67 chunk=4", "T=12 C=8 V=650 chunk=5"},
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
    .cases = {"T=1 C=3 V=2 ignore=0", "T=11 C=20 V=67 cap=5 z=5", "T=11 C=20 V=67",
              "T=1 C=5 V=9 ignore=1 z=1", "bench T=256 C=768 V=50304"},
    .f32_tolerance = 1e-5,
}};

} // namespace nvl
