// A small qwen3 on the device and on the CPU: kernel by kernel, then as the graph that was captured.
#include "engine/base/check.h"
#include "tools/hwcheck/report.h"
#include "tools/hwcheck/tiny_training.h"

namespace nvl::hw {

namespace {

struct Bounds {
    Dtype dtype;
    double loss, gradient, weight;
};

double distance(const Tensor& a, const Tensor& b) { // relative to the norm of b; infinite for NaN
    std::vector<double> x = tiny::values(a), y = tiny::values(b), d;
    for (size_t i = 0; i < x.size(); i++) d.push_back(x[i] - y[i]);
    double r = tiny::norm(d) / tiny::norm(y);
    return r < INFINITY ? r : INFINITY;
}

void compare(Report& r, const Bounds& bounds) {
    OptimizerConfig o{.kind = "adamw", .lr = 3e-3, .clip = 0.5};
    tiny::Training cpu(Device::cpu, tiny::qwen3(), bounds.dtype, o),
        gpu(Device::cuda, tiny::qwen3(), bounds.dtype, o);
    for (int64_t step = 0; step < 3; step++) {
        double expected = cpu.step(step), found = gpu.step(step);
        double loss = std::abs(found / expected - 1), gradient = std::abs(gpu.grad_norm / cpu.grad_norm - 1);
        double weight = 0;
        auto a = gpu.model->weights(), b = cpu.model->weights();
        for (size_t i = 0; i < a.size(); i++) {
            gradient = std::max(gradient, distance(gradient_of(a[i].second), gradient_of(b[i].second)));
            weight = std::max(
                weight, distance(gpu.optimizer->master(a[i].second), cpu.optimizer->master(b[i].second)));
        }
        r.check_that(
            loss <= bounds.loss && gradient <= bounds.gradient && weight <= bounds.weight,
            format("qwen3 %s, step %ld", name_of(bounds.dtype), long(step)),
            format("loss %.6f, off by %.1e, gradients %.1e, weights %.1e", found, loss, gradient, weight),
            {{"loss", found},
             {"loss_cpu", expected},
             {"loss_error", loss},
             {"gradient_error", gradient},
             {"weight_error", weight}});
        tiny::copy_state(gpu, cpu);
    }
    int64_t replayed = gpu.program->program().replayed;
    r.check_that(replayed == 4, format("qwen3 %s, replayed graphs", name_of(bounds.dtype)),
                 format("%ld of 6 micro-batches, expected 4", long(replayed)));
}

} // namespace

void check_training(Report& r, const Setting&) {
    compare(r, {Dtype::f32, 1e-5, 1e-4, 1e-4});
    compare(r, {Dtype::bf16, 5e-3, 5e-2, 5e-2}); // activations are rounded to 8 bits after other sums
}

} // namespace nvl::hw
