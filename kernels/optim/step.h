// What the optimisers share: the numbers of a step, the clip scale, and how updated weights are stored.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

/// The numbers of one group of parameters at one step, read from a tensor (f64, OPTIM_STEP): a program is
/// recorded once and its schedule is data.
struct OptimStep {
    double lr = 0, weight_decay = 0;
    double beta1 = 0.9, beta2 = 0.999; // Muon: beta1 is the momentum
    double eps = 1e-8;
    double step = 1; // counts from 1
};
constexpr int64_t OPTIM_STEP = sizeof(OptimStep) / sizeof(double);

/// A persistent tensor for it, and its content.
Tensor optim_step(Store& store, const std::string& name);
void set_step(const Tensor& t, const OptimStep& s);

/// Reads it in a kernel.
OptimStep step_of(const View& v);
/// The factor on gradients (global_norm.h): NaN if the norm is not finite; then nothing is updated.
double clip_of(const View& v);

/// Elements of a tensor that an optimiser walks as one array.
int64_t dense_count(const char* op, const View& v);

/// An f32 copy of a bf16 parameter, which is then a rounded copy of it; empty for f32 and f64.
Tensor master_of(Store& store, const Tensor& w);

} // namespace nvl
