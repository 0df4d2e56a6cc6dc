#include "kernels/norm/add_layernorm.h"

#include "kernels/norm/norm.cuh"

namespace nvl {

static void forward(Out s, Out y, Out stats, In a, In b, In w, In bias, double eps, bool biased) {
    run_norm_forward<true>("add_layernorm", s, y, stats, a, b, w, biased ? bias : View{}, eps, 0);
}
static void backward(Acc da, Acc db, AccSum dw, AccSum dbias, In ds, In dy, In s, In w, In stats,
                     bool residual) {
    run_norm_backward<true>("add_layernorm_backward", da, db, dw, dbias, residual ? ds : View{}, dy, s, w,
                            stats, 0);
}
static int64_t workspace(Acc, Acc, AccSum dw, AccSum dbias, In, In, In s, In, In, bool) {
    return norm_workspace(s, dw || dbias, 2);
}

static OnCuda on_cuda{add_layernorm_forward, forward};
static OnCuda backward_on_cuda{add_layernorm_backward, backward, workspace};

} // namespace nvl
