#include "kernels/loss/cross_entropy.h"

#include "kernels/cpu/rows.h"
#include "kernels/loss/softmax_row.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out loss, Out token, Out lse, In logits, In labels) {
    dispatch(logits.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t T = logits.rows(), V = logits.cols();
        const int32_t* label = labels.as<int32_t>();
        for_rows(logits, [&](int64_t i) {
            int64_t v = label_of(label, i, V, "cross_entropy");
            const X* l = logits.row<X>(i);
            auto sum = v < 0 ? LogSum<A>{} : log_sum_exp(l, V);
            *lse.row<A>(i) = sum.lse();
            *token.row<A>(i) = v < 0 ? 0 : sum.loss(A(l[v]));
        });
        double total = 0;
        for (int64_t i = 0; i < T; i++) total += *token.row<A>(i);
        *loss.as<A>() = A(total);
    });
}

static void backward(Acc dlogits, In dloss, In dtoken, In dlse, In logits, In labels, In lse) {
    dispatch(logits.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t V = logits.cols();
        const int32_t* label = labels.as<int32_t>();
        for_rows(logits, [&](int64_t i) {
            X* to = dlogits.row<X>(i);
            int64_t v = label_of(label, i, V, "cross_entropy");
            if (v < 0) return put_row(dlogits, to, V, [](int64_t) { return A(0); });
            A g = *dloss.as<A>() + *dtoken.row<A>(i);
            softmax_gradient(logits.row<X>(i), to, 0, V,
                             RowGradient<A>{*lse.row<A>(i), g + *dlse.row<A>(i), g, v, 0}, dlogits);
        });
    });
}

constinit Kernel<void(Out, Out, Out, In, In)> cross_entropy_forward{"cross_entropy", forward};
constinit Kernel<void(Acc, In, In, In, In, In, In)> cross_entropy_backward{"cross_entropy_backward",
                                                                           backward};

CrossEntropy cross_entropy(Tensor logits, Tensor labels) {
    check(logits.shape().rank == 2 && labels.shape().rank == 1 && labels.dim(0) == logits.dim(0) &&
              labels.dtype() == Dtype::i32,
          "cross_entropy: logits %s with labels %s %s; expected (T,V) and (T) i32",
          logits.shape().text().c_str(), labels.shape().text().c_str(), name_of(labels.dtype()));
    Tape& t = tape();
    Types type = join("cross_entropy", Rule::nonlinear, {logits});
    Dtype sum = sum_dtype(logits.dtype());
    Shape per_token{logits.dim(0), 1};
    CrossEntropy r{t.tensor("loss", {1}, sum, summed(type)), t.tensor("token_loss", per_token, sum, type),
                   t.tensor("lse", per_token, sum, type)};
    t.run(cross_entropy_forward, r.loss, r.token, r.lse, logits, labels);
    t.on_backward({r.loss, r.token, r.lse}, [=, &t] {
        t.run(cross_entropy_backward, t.into(logits), t.grad(r.loss), t.grad(r.token), t.grad(r.lse), logits,
              labels, r.lse);
    });
    return r;
}

static RegisterOp op{{
    .name = "cross_entropy",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        int64_t V = c["V"];
        Tensor logits = c.input({T, V});
        Tensor labels = c.integers({T}, [=](int64_t i) { return int32_t(i % 3 == 1 ? -100 : i * 7 % V); });
        CrossEntropy r = cross_entropy(logits, labels);
        return {r.loss, r.token, r.lse};
    },
    .cases = {"T=1 V=1", "T=1 V=2", "T=9 V=33", "T=5 V=1000", "T=40 V=64", "bench T=256 V=4096"},
    .f32_tolerance = 1e-5, // one token with two classes: the loss is a small difference
}};

} // namespace nvl
