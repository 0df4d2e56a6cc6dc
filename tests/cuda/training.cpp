// Whole training steps on the GPU against the same steps on the CPU, eager and as replayed graphs.
#include <gtest/gtest.h>

#include <cmath>

#include "tools/hwcheck/tiny_training.h"

using namespace nvl;
using namespace nvl::tiny;

namespace {

Json gpt2() {
    return {{"model_type", "gpt2"}, {"n_embd", 48},    {"n_head", 3},
            {"n_layer", 2},         {"vocab_size", V}, {"n_positions", 64}};
}

/// Within `tolerance` of the norm of b, or `each` per element.
void expect_near(const Tensor& a, const Tensor& b, double tolerance, double each, const std::string& what) {
    std::vector<double> x = values(a), y = values(b), d;
    for (size_t i = 0; i < x.size(); i++) d.push_back(x[i] - y[i]);
    EXPECT_LE(norm(d), std::max(tolerance * norm(y), each * std::sqrt(double(d.size())))) << what;
}

struct Bounds {
    double loss, gradient, weight;
};

void compare(const Json& config, Dtype dtype, const char* kind, Bounds bounds) {
    OptimizerConfig o{.kind = kind, .lr = 3e-3, .clip = 0.5};
    Training cpu(Device::cpu, config, dtype, o), gpu(Device::cuda, config, dtype, o);
    for (int64_t step = 0; step < 3; step++) {
        double expected = cpu.step(step), found = gpu.step(step);
        EXPECT_NEAR(found, expected, bounds.loss * expected) << "step " << step;
        EXPECT_NEAR(gpu.grad_norm, cpu.grad_norm, bounds.gradient * cpu.grad_norm) << "step " << step;
        auto a = gpu.model->weights(), b = cpu.model->weights();
        for (size_t i = 0; i < a.size(); i++) {
            std::string name = a[i].first.name + " of step " + std::to_string(step);
            // The bias of keys has no gradient but for rounding, of which Adam sees the direction alone.
            expect_near(gradient_of(a[i].second), gradient_of(b[i].second), bounds.gradient, 1e-8,
                        "d " + name);
            expect_near(gpu.optimizer->master(a[i].second), cpu.optimizer->master(b[i].second), bounds.weight,
                        1e-3 * o.lr, name);
        }
        if (testing::Test::HasFailure()) return;
        copy_state(gpu, cpu);
    }
    // The first run of each kind launches kernel by kernel, the second is captured; the third is a replay.
    EXPECT_EQ(gpu.program->program().replayed, 4);
    EXPECT_EQ(gpu.optimizer->program().replayed, 4);
    EXPECT_EQ(gpu.program->program().held_bytes(), gpu.program->program().planned_bytes());
    EXPECT_GT(gpu.program->program().planned_bytes(), 0);
}

} // namespace

// Loss, gradients, weights. Newton-Schulz multiplies in bf16.
TEST(CudaTraining, Qwen3AdamW) { compare(qwen3(), Dtype::f32, "adamw", {1e-5, 1e-4, 1e-4}); }
TEST(CudaTraining, Qwen3Muon) { compare(qwen3(), Dtype::f32, "muon", {1e-5, 1e-4, 5e-3}); }
TEST(CudaTraining, Gpt2AdamW) { compare(gpt2(), Dtype::f32, "adamw", {1e-5, 1e-4, 1e-4}); }
// Activations are rounded to 8 bits, after sums in another order; the first steps of Adam have the size of
// the learning rate whatever the gradient's, so an element whose gradient changes sign is 2 lr away.
TEST(CudaTraining, Qwen3Bf16) { compare(qwen3(), Dtype::bf16, "adamw", {5e-3, 5e-2, 5e-2}); }

TEST(CudaTraining, TheSameRunTwiceHasTheSameBits) {
    std::vector<std::vector<double>> weights;
    for (int run = 0; run < 2; run++) {
        Training t(Device::cuda, qwen3(), Dtype::f32, {.kind = "muon", .lr = 3e-3});
        t.step(0), t.step(1);
        weights.emplace_back();
        for (auto& [info, w] : t.model->weights())
            for (double x : values(w)) weights.back().push_back(x);
    }
    EXPECT_EQ(weights[0], weights[1]);
}

TEST(CudaTraining, NamesTheFirstStepThatIsNotFinite) {
    Training t(Device::cuda, qwen3(), Dtype::f32, {.lr = 3e-3});
    for (auto& [info, w] : t.model->weights())
        if (info.name == "model.layers.1.mlp.up_proj.weight")
            host_write(w, [](std::byte* to) { reinterpret_cast<float*>(to)[5] = NAN; });
    std::string found = t.program->find_non_finite(batch(0, T), 1);
    EXPECT_NE(found.find("weight model.layers.1.mlp.up_proj.weight in layers.1"), std::string::npos) << found;
}

// What the plan promises is what the device gives away.
TEST(CudaTraining, DeviceMemoryIsThePlannedMemory) {
    DeviceBackend& device = backend_of(Device::cuda);
    size_t before = device.free_bytes();
    Training t(Device::cuda, qwen3(), Dtype::f32, {.lr = 3e-3});
    t.step(0), t.step(1);
    int64_t planned =
        t.store.bytes() + t.program->program().planned_bytes() + t.optimizer->program().planned_bytes();
    auto taken = int64_t(before - device.free_bytes());
    EXPECT_GE(taken, planned);
    EXPECT_LE(taken, planned + 2048 * int64_t(t.model->weights().size() * 4 + 16))
        << "rounding of allocations";
}
