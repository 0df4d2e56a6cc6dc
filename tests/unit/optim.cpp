// Optimisers against PyTorch's (goldens), and what the op driver cannot see: bf16 copies, NaN, many steps.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/io/safetensors.h"
#include "engine/plan/program.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/global_norm.h"

using namespace nvl;

namespace {

const Checkpoint& golden() {
    static Checkpoint file(NVL_SOURCE "/tests/golden/numerics/optim.safetensors");
    return file;
}
std::vector<double> values(const std::string& name) { return read_as<double>(golden().at(name)); }
nlohmann::json settings(const std::string& name) {
    return nlohmann::json::parse(read_file(NVL_SOURCE "/tests/golden/numerics/optim_notes.json")).at(name);
}

template <class X> void fill(const Tensor& t, const std::vector<double>& from) {
    for (size_t i = 0; i < from.size(); i++) host<X>(t)[i] = X(from[i]);
}
template <class X> double distance(const Tensor& t, const std::vector<double>& expected) {
    double d = 0, n = 0;
    for (size_t i = 0; i < expected.size(); i++) {
        d += std::pow(double(host<X>(t)[i]) - expected[i], 2), n += expected[i] * expected[i];
    }
    return std::sqrt(d / n);
}

// Five recorded-once steps of adamw in type X; the largest distance from the golden parameters.
template <class X> double adamw_distance(const std::string& name) {
    auto set = settings(name);
    Store store;
    Tensor w = store.parameter("w", golden().at(name + ".p0").shape, dtype_of<X>);
    AdamWState state = adamw_state(store, w, set.value("amsgrad", false));
    Tensor step = optim_step(store, "step");
    fill<X>(w, values(name + ".p0"));
    Tape t;
    Recording recording(t);
    adamw(w, state, gradient_of(w), step, global_norm({gradient_of(w)}, 0).clip);
    Program program(t);
    double worst = 0;
    for (int i = 1; i <= 5; i++) {
        fill<X>(gradient_of(w), values(name + ".g" + std::to_string(i)));
        set_step(step, {.lr = set["lr"],
                        .weight_decay = set["weight_decay"],
                        .beta1 = set["betas"][0],
                        .beta2 = set["betas"][1],
                        .eps = set["eps"],
                        .step = double(i)});
        program.run();
        worst = std::max(worst, distance<X>(w, values(name + ".p" + std::to_string(i))));
    }
    worst = std::max(worst, distance<X>(state.m, values(name + ".exp_avg")));
    return std::max(worst, distance<X>(state.v, values(name + ".exp_avg_sq")));
}

} // namespace

TEST(AdamW, EqualsPyTorch) {
    for (const char* name : {"adamw_a", "adamw_b", "adamw_amsgrad"}) {
        EXPECT_LT(adamw_distance<double>(name), 1e-14) << name;
        EXPECT_LT(adamw_distance<float>(name), 3e-7) << name;
    }
}

TEST(AdamW, Bf16ParameterIsTheRoundedMaster) {
    Store store;
    constexpr int64_t N = 5000;
    Tensor w = store.parameter("w", {N}, Dtype::bf16), plain = store.parameter("plain", {N}, Dtype::f32);
    for (int64_t i = 0; i < N; i++) {
        host<bf16>(w)[i] = bf16(float(std::sin(double(i))));
        host<float>(plain)[i] = host<bf16>(w)[i];
        host<float>(gradient_of(w))[i] = host<float>(gradient_of(plain))[i] = float(std::cos(double(i * i)));
    }
    AdamWState a = adamw_state(store, w), b = adamw_state(store, plain);
    Tensor step = optim_step(store, "step");
    set_step(step, {.lr = 0.01});
    Tape t;
    Recording recording(t);
    Tensor clip = global_norm({gradient_of(w)}, 0).clip;
    adamw(w, a, gradient_of(w), step, clip);
    adamw(plain, b, gradient_of(plain), step, clip);
    Program program(t);
    program.run(), program.run();
    for (int64_t i = 0; i < N; i++) {
        ASSERT_EQ(host<float>(a.master)[i], host<float>(plain)[i]);
        ASSERT_EQ(host<bf16>(w)[i].bits, bf16(host<float>(plain)[i]).bits);
    }
}

TEST(GlobalNorm, ClipsAsPyTorch) {
    Store store;
    std::vector<Tensor> gradients;
    for (int i = 0; i < 3; i++) {
        std::string name = "clip.g" + std::to_string(i);
        gradients.push_back(store.tensor(name, golden().at(name).shape, Dtype::f64));
        fill<double>(gradients.back(), values(name));
    }
    Tape t;
    Recording recording(t);
    GlobalNorm norm = global_norm(gradients, 1);
    t.keep(norm.clip);
    Program program(t);
    program.run();
    const double* clip = program.data<double>(norm.clip);
    EXPECT_NEAR(clip[0], values("clip.norm")[0], 1e-12);
    for (int i = 0; i < 3; i++) {
        auto expected = values("clip.out" + std::to_string(i));
        for (size_t k = 0; k < expected.size(); k++)
            EXPECT_NEAR(host<double>(gradients[size_t(i)])[k] * clip[1], expected[k], 1e-14);
    }
}

TEST(GlobalNorm, NotFiniteChangesNothingAndNamesTheTensor) {
    Store store;
    Tensor a = store.parameter("a", {100}, Dtype::f32), b = store.parameter("b", {100}, Dtype::bf16);
    for (int i = 0; i < 100; i++) host<float>(a)[i] = 1, host<bf16>(b)[i] = bf16(2.0f);
    host<float>(gradient_of(b))[7] = INFINITY;
    AdamWState sa = adamw_state(store, a), sb = adamw_state(store, b);
    Tensor step = optim_step(store, "step");
    set_step(step, {.lr = 0.1, .weight_decay = 0.1});
    Tape t;
    Recording recording(t);
    GlobalNorm norm = global_norm({gradient_of(a), gradient_of(b)}, 1);
    t.keep(norm.clip), t.keep(norm.squares);
    adamw(a, sa, gradient_of(a), step, norm.clip);
    adamw(b, sb, gradient_of(b), step, norm.clip);
    Program program(t);
    program.run();
    EXPECT_FALSE(std::isfinite(program.data<double>(norm.clip)[0]));
    EXPECT_TRUE(std::isfinite(program.data<double>(norm.squares)[0]));
    EXPECT_FALSE(std::isfinite(program.data<double>(norm.squares)[1]));
    for (int i = 0; i < 100; i++) {
        EXPECT_EQ(host<float>(a)[i], 1);
        EXPECT_EQ(float(host<bf16>(b)[i]), 2);
        EXPECT_EQ(host<float>(sb.m)[i], 0);
    }
}
