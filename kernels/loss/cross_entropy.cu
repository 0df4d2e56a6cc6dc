#include "kernels/loss/cross_entropy.h"

#include "kernels/loss/softmax_row.cuh"

namespace nvl {

static void forward(Out loss, Out token, Out lse, In logits, In labels) {
    int64_t T = logits.rows(), V = logits.cols();
    if (T)
        cuda_dispatch(logits.dtype, [&]<class X> {
            token_loss_kernel<X><<<unsigned(T), LOSS_THREADS, 0, cuda_stream()>>>(
                rows_of<const X>(logits), pointer_of<const int32_t>(labels), rows_of<float>(token),
                rows_of<float>(lse), 0, V, 0.f, rows_aligned(logits, VEC<X>));
        });
    check_launch("cross_entropy");
    total_loss_kernel<<<1, LOSS_THREADS, 0, cuda_stream()>>>(
        pointer_of<float>(loss), rows_of<const float>(token), rows_of<const float>(lse), T, 0);
    check_launch("cross_entropy: total");
}

static void backward(Acc dlogits, In dloss, In dtoken, In dlse, In logits, In labels, In lse) {
    int64_t T = logits.rows(), V = logits.cols();
    if (!dlogits || !T) return;
    cuda_dispatch(logits.dtype, [&]<class X> {
        LossGradient g{pointer_of<const float>(dloss),
                       rows_of<const float>(dtoken),
                       rows_of<const float>(dlse),
                       rows_of<const float>(lse),
                       pointer_of<const int32_t>(labels),
                       0,
                       0};
        constexpr int N = VEC<X>;
        softmax_gradient_kernel<X, X><<<softmax_gradient_grid<X>(T, V), LOSS_THREADS, 0, cuda_stream()>>>(
            rows_of<const X>(logits), rows_of<X>(dlogits), g, 0, 0, V, dlogits.add,
            rows_aligned(logits, N) && rows_aligned(dlogits, N));
    });
    check_launch("cross_entropy_backward");
}

static OnCuda on_forward{cross_entropy_forward, forward};
static OnCuda on_backward{cross_entropy_backward, backward};

} // namespace nvl
