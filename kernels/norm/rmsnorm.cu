#include "kernels/norm/rmsnorm.h"

#include "kernels/norm/rows.cuh"

namespace nvl {

template void run_norm_forward<false>(const char*, const View&, const View&, const View&, const View&,
                                      const View&, const View&, const View&, double, double);
template void run_norm_backward<false>(const char*, const Acc&, const Acc&, const AccSum&, const AccSum&,
                                       const View&, const View&, const View&, const View&, const View&,
                                       double);

static void forward(Out y, Out r, In x, In w, double eps, double offset) {
    run_norm_forward<false>("rmsnorm", {}, y, r, x, {}, w, {}, eps, offset);
}
static void backward(Acc dx, AccSum dw, In dy, In x, In w, In r, double offset) {
    run_norm_backward<false>("rmsnorm_backward", dx, {}, dw, {}, {}, dy, x, w, r, offset);
}
static int64_t workspace(Acc, AccSum dw, In, In x, In, In, double) { return norm_workspace(x, bool(dw), 1); }

static OnCuda on_cuda{rmsnorm_forward, forward};
static OnCuda backward_on_cuda{rmsnorm_backward, backward, workspace};

} // namespace nvl
