#include "kernels/linear/per_head_linear.h"

#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In x, In w, Weights order) {
    for (int64_t h = 0; h < x.dim(1); h++)
        product(head_of(y, h), head_of(x, h), stacked_weight(w, h, order).t());
}
static void backward_dx(Acc dx, In dy, In w, Weights order) {
    for (int64_t h = 0; h < dy.dim(1); h++)
        product(head_of(dx, h), head_of(dy, h), stacked_weight(w, h, order), {.add = dx.add});
}
static void backward_dw(AccSum dw, In dy, In x, Weights order) {
    for (int64_t h = 0; h < dy.dim(1); h++)
        product(stacked_weight(dw, h, order), head_of(dy, h).t(), head_of(x, h), {.add = dw.add});
}

static double flops(const View& rows, const View& w) { return 2 * double(rows.dim(0)) * double(w.numel()); }
constinit Kernel<void(Out, In, In, Weights)> per_head_forward{
    "per_head_linear", forward, [](Out, In x, In w, Weights) { return flops(x, w); }};
constinit Kernel<void(Acc, In, In, Weights)> per_head_dx{
    "per_head_linear_dx", backward_dx, [](Acc, In dy, In w, Weights) { return flops(dy, w); }};
constinit Kernel<void(AccSum, In, In, Weights)> per_head_dw{
    "per_head_linear_dw", backward_dw, [](AccSum dw, In dy, In, Weights) { return flops(dy, dw); }};

Tensor per_head_linear(Tensor x, Tensor w, Weights order) {
    bool out_in = order == Weights::out_in;
    check(x.shape().rank == 3 && w.shape().rank == 3 && x.dim(1) == w.dim(0) &&
              x.dim(2) == w.dim(out_in ? 2 : 1),
          "per_head_linear: %s is %s and %s is %s; expected (tokens, heads, inputs) and (heads, %s)",
          x.name(), x.shape().text().c_str(), w.name(), w.shape().text().c_str(),
          out_in ? "outputs, inputs" : "inputs, outputs");
    Tape& t = tape();
    Tensor y = t.tensor("per_head_linear", {x.dim(0), x.dim(1), w.dim(out_in ? 1 : 2)}, x.dtype(),
                        join("per_head_linear", Rule::nonlinear, {x, w}));
    t.run(per_head_forward, y, x, w, order);
    t.on_backward({y}, [=, &t] {
        t.run(per_head_dx, t.into(x), t.grad(y), w, order);
        t.run(per_head_dw, t.into(w), t.grad(y), x, order);
    });
    return y;
}

static RegisterOp op{{
    .name = "per_head_linear",
    .build = [](Case& c) -> std::vector<Tensor> {
        bool in_out = c.get("in_out", 0);
        int64_t H = c["H"], A = c["A"], B = c["B"];
        Tensor x = c.input({c.rows("T"), H, A});
        return {per_head_linear(x, c.weight(in_out ? Shape{H, A, B} : Shape{H, B, A}),
                                in_out ? Weights::in_out : Weights::out_in)};
    },
    .cases = {"T=1 H=1 A=1 B=1", "T=7 H=3 A=12 B=5", "T=33 H=2 A=16 B=24 in_out=1",
              "bench T=256 H=16 A=128 B=512 in_out=1"},
}};

} // namespace nvl
