#include "kernels/norm/layernorm.h"

#include "kernels/norm/rows.cuh"

namespace nvl {

template void run_norm_forward<true>(const char*, const View&, const View&, const View&, const View&,
                                     const View&, const View&, const View&, double, double);
template void run_norm_backward<true>(const char*, const Acc&, const Acc&, const AccSum&, const AccSum&,
                                      const View&, const View&, const View&, const View&, const View&,
                                      double);

static void forward(Out y, Out stats, In x, In w, In b, double eps, bool biased) {
    run_norm_forward<true>("layernorm", {}, y, stats, x, {}, w, biased ? b : View{}, eps, 0);
}
static void backward(Acc dx, AccSum dw, AccSum db, In dy, In x, In w, In stats) {
    run_norm_backward<true>("layernorm_backward", dx, {}, dw, db, {}, dy, x, w, stats, 0);
}
static int64_t workspace(Acc, AccSum dw, AccSum db, In, In x, In, In) {
    return norm_workspace(x, dw || db, 2);
}

static OnCuda on_cuda{layernorm_forward, forward};
static OnCuda backward_on_cuda{layernorm_backward, backward, workspace};

} // namespace nvl
