#include "kernels/linear/linear.h"

#include "kernels/cpu/rows.h"
#include "kernels/cpu/sums.h"
#include "kernels/linear/matrix.h"
#include "kernels/linear/packed.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In x, In w) { product(matrix(y), matrix(x), matrix(w).t()); }
static void bias_forward(Out y, In x, In w, In b) {
    product(matrix(y), matrix(x), matrix(w).t(), {.bias = b});
}
using Packed = std::shared_ptr<const PackedWeight>;
static void packed_forward(Out y, In x, In w, Packed p) {
    product(matrix(y), matrix(x), matrix(w).t(), {.packed = p.get()});
}
static void packed_bias_forward(Out y, In x, In w, In b, Packed p) {
    product(matrix(y), matrix(x), matrix(w).t(), {.bias = b, .packed = p.get()});
}
static void backward_dx(Acc dx, In dy, In w) { product(matrix(dx), matrix(dy), matrix(w), {.add = dx.add}); }
static void backward_dw(AccSum dw, In dy, In x) {
    product(matrix(dw), matrix(dy).t(), matrix(x), {.add = dw.add});
}
static void backward_db(AccSum db, In dy) {
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t F = dy.cols();
        auto row = [&](int64_t i, A* sums) {
            const X* d = dy.row<X>(i);
            for (int64_t c = 0; c < F; c++) sums[c] += A(d[c]);
        };
        block_sums<A>(dy.rows(), F, row, [&](const A* sums) {
            put_row(db, db.row<A>(0), F, [&](int64_t c) { return sums[c]; });
        });
    });
}

static double product_flops(const View& x, const View& w) { // x has C columns, or is the gradient with F
    return 2 * double(x.rows()) * double(w.numel());
}

constinit Kernel<void(Out, In, In)> linear_forward{
    "linear", forward, [](Out, In x, In w) { return product_flops(x, w); }, {.any_stride = true}};
constinit Kernel<void(Out, In, In, In)> linear_bias_forward{
    "linear_bias",
    bias_forward,
    [](Out, In x, In w, In) { return product_flops(x, w); },
    {.any_stride = true}};
static constinit Kernel<void(Out, In, In, Packed)> linear_packed{
    "linear_packed",
    packed_forward,
    [](Out, In x, In w, Packed) { return product_flops(x, w); },
    {.any_stride = true}};
static constinit Kernel<void(Out, In, In, In, Packed)> linear_packed_bias{
    "linear_packed_bias",
    packed_bias_forward,
    [](Out, In x, In w, In, Packed) { return product_flops(x, w); },
    {.any_stride = true}};
constinit Kernel<void(Acc, In, In)> linear_dx{
    "linear_dx", backward_dx, [](Acc, In dy, In w) { return product_flops(dy, w); }, {.any_stride = true}};
constinit Kernel<void(AccSum, In, In)> linear_dw{"linear_dw",
                                                 backward_dw,
                                                 [](AccSum dw, In dy, In) { return product_flops(dy, dw); },
                                                 {.any_stride = true}};
constinit Kernel<void(AccSum, In)> linear_db{"linear_db", backward_db};

static Tensor output(const Tensor& x, const Tensor& w, Dtype dtype) {
    check(w.shape().rank == 2 && x.dim(-1) == w.dim(1),
          "linear: %s is %s, the weight %s is %s; expected (outputs,%ld)", x.name(), x.shape().text().c_str(),
          w.name(), w.shape().text().c_str(), x.dim(-1).size);
    check(x.dtype() == w.dtype(), "linear: %s is %s and the weight %s is %s; expected the same type",
          x.name(), name_of(x.dtype()), w.name(), name_of(w.dtype()));
    Shape s = x.shape();
    s[-1] = w.dim(0);
    return tape().tensor("linear", s, dtype, join_linear(x, w));
}

// The packed copy of w, if this thread uses one.
static Packed packed_copy(const Tensor& x, const Tensor& w) {
    PackedWeights* all = UsePacked::active();
    if (!all) return nullptr;
    bool packable =
        w.buffer->data && !w.buffer->tape && w.buffer->device == Device::cpu && w.dtype() != Dtype::f64;
    if (all->on_use && packable) all->add(w);
    Packed p = all->find(w);
    check(!p || !tape().wants_gradients() || (!x.buffer->needs_grad && !w.buffer->needs_grad),
          "linear: %s is packed for inference, but gradients are wanted; call no_grad()", w.name());
    return p;
}

Tensor linear(Tensor x, Tensor w) {
    Tape& t = tape();
    Tensor y = output(x, w, x.dtype());
    if (Packed p = packed_copy(x, w)) {
        t.run(linear_packed, y, x, w, p);
        return y;
    }
    t.run(linear_forward, y, x, w);
    t.on_backward({y}, [=, &t] {
        t.run(linear_dx, t.into(x), t.grad(y), w);
        t.run(linear_dw, t.into(w), t.grad(y), x);
    });
    return y;
}

Tensor linear(Tensor x, Tensor w, Tensor b) {
    if (!b) return linear(x, w);
    Tape& t = tape();
    Tensor y = output(x, w, x.dtype());
    check(b.shape().rank == 1 && b.dim(0) == w.dim(0) && b.dtype() == x.dtype(),
          "linear: the bias %s is %s %s; expected (%ld) %s", b.name(), b.shape().text().c_str(),
          name_of(b.dtype()), w.dim(0).size, name_of(x.dtype()));
    if (Packed p = packed_copy(x, w)) {
        t.run(linear_packed_bias, y, x, w, b, p);
        return y;
    }
    t.run(linear_bias_forward, y, x, w, b);
    t.on_backward({y}, [=, &t] {
        t.run(linear_dx, t.into(x), t.grad(y), w);
        t.run(linear_dw, t.into(w), t.grad(y), x);
        t.run(linear_db, t.into(b), t.grad(y));
    });
    return y;
}

Tensor linear_sums(Tensor x, Tensor w) {
    Tape& t = tape();
    Tensor y = output(x, w, sum_dtype(x.dtype()));
    if (Packed p = packed_copy(x, w))
        t.run(linear_packed, y, x, w, p);
    else
        t.run(linear_forward, y, x, t.detach(w));
    return y;
}

// "stored=in_out": the weight as GPT-2 stores it. "H=3": an input (T,H,C).
static RegisterOp op{{
    .name = "linear",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        int64_t C = c["C"], F = c["F"];
        Tensor x = c.input(c.get("H", 0) ? Shape{T, c["H"], C} : Shape{T, C});
        bool in_out = c.text("stored", "out_in") == "in_out";
        Tensor w = c.weight(in_out ? Shape{C, F} : Shape{F, C}, 0.3);
        if (in_out) w = transpose(w, 0, 1);
        Tensor b = c.get("bias", 0) ? c.weight({F}) : Tensor{};
        return {linear(x, w, b)};
    },
    .cases = {"T=1 C=1 F=1", "T=1 C=64 F=33", "T=7 C=100 F=50 bias=1", "T=65 C=48 F=100 stored=in_out bias=1",
              "T=1 C=5 F=1 stored=in_out", "T=5 H=3 C=16 F=20", "T=130 C=33 F=71",
              "bench T=256 C=768 F=2304 bias=1", "bench T=256 C=768 F=768 bias=1",
              "bench T=256 C=768 F=3072 bias=1", "bench T=256 C=3072 F=768 bias=1",
              "bench T=256 C=768 F=3072 stored=in_out bias=1"},
}};

static std::vector<Tensor> packed_case(Case& c, bool pack) {
    Dim T = c.rows("T");
    int64_t C = c["C"], F = c["F"];
    bool in_out = c.text("stored", "out_in") == "in_out";
    Tensor x = c.constant({T, C}), w = c.constant(in_out ? Shape{C, F} : Shape{F, C}, 0.3);
    if (in_out) w = transpose(w, 0, 1);
    Tensor b = c.get("bias", 0) ? c.constant({F}) : Tensor{};
    PackedWeights packed;
    if (pack && c.dtype() != Dtype::f64) packed.add(w);
    UsePacked use(packed);
    return {linear(x, w, b)};
}
static RegisterOp packed_op{{
    .name = "linear_packed",
    .build = [](Case& c) { return packed_case(c, true); },
    .reference = [](Case& c) { return packed_case(c, false); },
    .cases = {"T=1 C=64 F=33", "T=7 C=100 F=50 bias=1", "T=20 C=48 F=100 stored=in_out bias=1", "T=1 C=1 F=1",
              "bench T=1 C=2048 F=8192", "bench T=8 C=2048 F=8192"},
    .gradients = false,
}};

} // namespace nvl
