#include "kernels/optim/step.h"

#include <cstring>

namespace nvl {

Tensor optim_step(Store& store, const std::string& name) {
    Tensor t = store.tensor(name, {OPTIM_STEP}, Dtype::f64);
    set_step(t, {});
    return t;
}
void set_step(const Tensor& t, const OptimStep& s) {
    host_write(t, [&](std::byte* to) { std::memcpy(to, &s, sizeof s); });
}

OptimStep step_of(const View& v) {
    check(v.numel() == OPTIM_STEP, "optimiser: the step tensor has %ld numbers, expected %ld", v.numel(),
          OPTIM_STEP);
    const double* n = v.as<double>();
    return {n[0], n[1], n[2], n[3], n[4], n[5]};
}
double clip_of(const View& v) {
    check(v.numel() == 2, "optimiser: the clip tensor has %ld numbers, expected norm and scale", v.numel());
    return v.as<double>()[1];
}

int64_t dense_count(const char* op, const View& v) {
    int64_t expected = 1;
    for (int d = v.rank - 1; d >= 0; expected *= v.dim(d), d--)
        check(v.dim(d) == 1 || v.stride[size_t(d)] == expected,
              "%s: parameters, gradients and states must be contiguous", op);
    return v.numel();
}

Tensor master_of(Store& store, const Tensor& w) {
    if (w.dtype() != Dtype::bf16) return {};
    Tensor master = store.tensor(std::string(w.name()) + ".master", w.shape(), Dtype::f32);
    HostCopy copy(w);
    const bf16* from = copy.as<bf16>();
    host_write(master, [&](std::byte* to) {
        for (int64_t i = 0; i < w.shape().numel(); i++) reinterpret_cast<float*>(to)[i] = from[i];
    });
    return master;
}

} // namespace nvl
