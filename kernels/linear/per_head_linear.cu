// per_head_linear on the GPU: a product for each head.
#include "kernels/linear/per_head_linear.h"

#include "engine/device/cuda.h"
#include "kernels/linear/gemm_cuda.h"

namespace nvl {

namespace {

void forward(Out y, In x, In w, Weights order) {
    for (int64_t h = 0; h < x.dim(1); h++)
        cuda_product(head_of(y, h), head_of(x, h), stacked_weight(w, h, order).t());
}
void backward_dx(Acc dx, In dy, In w, Weights order) {
    for (int64_t h = 0; dx && h < dy.dim(1); h++)
        cuda_product(head_of(dx, h), head_of(dy, h), stacked_weight(w, h, order), {.add = dx.add});
}
void backward_dw(AccSum dw, In dy, In x, Weights order) {
    for (int64_t h = 0; dw && h < dy.dim(1); h++)
        cuda_product(stacked_weight(dw, h, order), head_of(dy, h).t(), head_of(x, h), {.add = dw.add});
}

OnCuda on_forward{per_head_forward, forward}, on_dx{per_head_dx, backward_dx},
    on_dw{per_head_dw, backward_dw};

} // namespace

} // namespace nvl
