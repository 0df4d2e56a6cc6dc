// As on the CPU: chunks of rows, and the gradients of a chunk by blocks of the vocabulary. Logits stay as the
// product left them; what reads them caps them.
#include "kernels/linear/gemm_cuda.h"
#include "kernels/loss/loss_head.h"
#include "kernels/loss/softmax_row.cuh"

namespace nvl {

namespace {

const int32_t* labels_of(const LossHead& h) { return pointer_of<const int32_t>(h.labels); }
template <class X> Rows<X> dense_rows(const View& v, int64_t cols) { return {pointer_of<X>(v), cols}; }

void forward_rows(const LossHead& h, int64_t from, int64_t to) {
    int64_t V = h.vocabulary();
    cuda_product(dense(h.logits, to - from, V), matrix(h.x).part(from, to), matrix(h.w).t());
    if (!h.loss || from == to) return;
    token_loss_kernel<float><<<unsigned(to - from), LOSS_THREADS, 0, cuda_stream()>>>(
        dense_rows<const float>(h.logits, V), labels_of(h), rows_of<float>(h.token), rows_of<float>(h.lse),
        from, V, float(h.softcap), V % VEC<float> == 0);
    check_launch("linear_cross_entropy: losses");
}

/// dx = sums, rounded.
template <class X> __global__ void __launch_bounds__(LOSS_THREADS)
    store_dx_kernel(Rows<X> dx, Rows<const float> sums, int64_t from, int64_t cols, bool add) {
    int64_t i = blockIdx.x, c = int64_t(blockIdx.y) * LOSS_THREADS + threadIdx.x;
    if (c < cols) put<1>(dx(from + i) + c, Floats<1>{sums(i)[c]}, add);
}

// dx and dw of rows [from, to) from their logits, block by block of the vocabulary.
template <class X> void backward_rows(const LossHead& h, int64_t from, int64_t to) {
    int64_t V = h.vocabulary(), C = h.x.cols(), rows = to - from;
    Matrix x = matrix(h.x).part(from, to), w = matrix(h.w), sums = dense(h.sums, rows, C);
    LossGradient g{pointer_of<const float>(h.dloss),
                   rows_of<const float>(h.dtoken),
                   rows_of<const float>(h.dlse),
                   rows_of<const float>(h.lse),
                   labels_of(h),
                   float(h.z_loss),
                   float(h.softcap)};
    for (int64_t v0 = 0, v1; v0 < V; v0 = v1) {
        v1 = std::min(V, v0 + LOSS_BLOCK_V);
        Matrix d = dense(h.block, rows, v1 - v0);
        bool vector = V % VEC<float> == 0 && (v1 - v0) % VEC<float> == 0;
        if (rows)
            softmax_gradient_kernel<float, X>
                <<<softmax_gradient_grid<float>(rows, v1 - v0), LOSS_THREADS, 0, cuda_stream()>>>(
                    dense_rows<const float>(h.logits, V), dense_rows<X>(h.block, v1 - v0), g, from, v0, v1,
                    false, vector);
        check_launch("linear_cross_entropy: gradients of logits");
        if (h.dx) cuda_product(sums, d, w.part(v0, v1), {.add = v0 > 0});
        if (h.dw) cuda_product(matrix(h.dw).part(v0, v1), d.t(), x, {.add = h.dw.add || from > 0});
    }
    if (!h.dx || !rows) return;
    store_dx_kernel<X>
        <<<dim3(unsigned(rows), unsigned(ceil_div(C, LOSS_THREADS))), LOSS_THREADS, 0, cuda_stream()>>>(
            rows_of<X>(h.dx), dense_rows<const float>(h.sums, C), from, C, h.dx.add);
    check_launch("linear_cross_entropy: dx");
}

void run(const LossHead& h) {
    int64_t T = h.x.rows(), chunk = h.logits.dim(0);
    cuda_dispatch(h.x.dtype, [&]<class X> {
        for (int64_t from = 0; from == 0 || from < T; from += chunk) { // no tokens: zeros to dw
            int64_t to = std::min(T, from + chunk);
            forward_rows(h, from, to);
            if (h.dx || h.dw) backward_rows<X>(h, from, to);
        }
    });
    if (!h.loss) return;
    total_loss_kernel<<<1, LOSS_THREADS, 0, cuda_stream()>>>(
        pointer_of<float>(h.loss), rows_of<const float>(h.token), rows_of<const float>(h.lse), T, h.z_loss);
    check_launch("linear_cross_entropy: total");
}

using Slots = LossSlots<run>;
OnCuda on_forward{linear_cross_entropy_forward, Slots::forward};
OnCuda on_backward{linear_cross_entropy_backward, Slots::backward};
OnCuda on_fused{linear_cross_entropy_fused, Slots::fused};

} // namespace

} // namespace nvl
