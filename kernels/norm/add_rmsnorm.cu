#include "kernels/norm/add_rmsnorm.h"

#include "kernels/norm/norm.cuh"

namespace nvl {

static void forward(Out s, Out y, Out r, In a, In b, In w, double eps, double offset) {
    run_norm_forward<false>("add_rmsnorm", s, y, r, a, b, w, {}, eps, offset);
}
static void backward(Acc da, Acc db, AccSum dw, In ds, In dy, In s, In w, In r, double offset,
                     bool residual) {
    run_norm_backward<false>("add_rmsnorm_backward", da, db, dw, {}, residual ? ds : View{}, dy, s, w, r,
                             offset);
}
static int64_t workspace(Acc, Acc, AccSum dw, In, In, In s, In, In, double, bool) {
    return norm_workspace(s, bool(dw), 1);
}

static OnCuda on_cuda{add_rmsnorm_forward, forward};
static OnCuda backward_on_cuda{add_rmsnorm_backward, backward, workspace};

} // namespace nvl
