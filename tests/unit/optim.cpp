// Optimisers against PyTorch's (goldens), and what the op driver cannot see: bf16 copies, NaN, many steps.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/io/safetensors.h"
#include "engine/plan/program.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/global_norm.h"
#include "kernels/optim/muon.h"

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

// The same for muon; its products in `products`.
template <class X> double muon_distance(const std::string& name, const std::string& run, Dtype products) {
    auto set = settings(name);
    Store store;
    std::string key = name + "." + run;
    Tensor w = store.parameter("w", golden().at(key + ".p0").shape, dtype_of<X>);
    MuonState state = muon_state(store, w);
    Tensor step = optim_step(store, "step");
    fill<X>(w, values(key + ".p0"));
    Tape t;
    Recording recording(t);
    muon(w, state, gradient_of(w), step, global_norm({gradient_of(w)}, 0).clip,
         {.nesterov = set["nesterov"],
          .adjust = muon_adjust_from(set.value("adjust_lr_fn", "original")),
          .products = products});
    Program program(t);
    double worst = 0;
    for (int i = 1; i <= 5; i++) {
        fill<X>(gradient_of(w), values(key + ".g" + std::to_string(i)));
        set_step(step, {.lr = set["lr"], .weight_decay = set["weight_decay"], .beta1 = set["momentum"]});
        program.run();
        worst = std::max(worst, distance<X>(w, values(key + ".p" + std::to_string(i))));
    }
    return worst;
}

template <class X> std::vector<double> orthogonalised(const std::string& name, Dtype products) {
    Store store;
    Tensor x = store.tensor("x", golden().at(name).shape, dtype_of<X>);
    fill<X>(x, values(name));
    Tape t;
    Recording recording(t);
    newton_schulz(x, {.products = products});
    Program(t).run();
    return {host<X>(x), host<X>(x) + x.shape().numel()};
}
double distance(const std::vector<double>& a, const std::vector<double>& b) {
    double d = 0, n = 0;
    for (size_t i = 0; i < b.size(); i++) d += std::pow(a[i] - b[i], 2), n += b[i] * b[i];
    return std::sqrt(d / n);
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
    Tensor c = store.parameter("c", {5, 3}, Dtype::bf16);
    for (int i = 0; i < 15; i++) host<bf16>(c)[i] = bf16(3.0f), host<float>(gradient_of(c))[i] = 1;
    MuonState sc = muon_state(store, c);
    muon(c, sc, gradient_of(c), step, norm.clip);
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
    for (int i = 0; i < 15; i++) {
        EXPECT_EQ(float(host<bf16>(c)[i]), 3);
        EXPECT_EQ(host<float>(sc.m)[i], 0);
    }
}

TEST(Muon, EqualsPyTorch) {
    for (const char* name : {"muon_a", "muon_b"}) {
        EXPECT_LT(muon_distance<double>(name, "f64", Dtype::f64), 1e-12) << name;
        EXPECT_LT(muon_distance<float>(name, "f64", Dtype::f32), 2e-6) << name;
        EXPECT_LT(muon_distance<float>(name, "bf16", Dtype::bf16), 2e-3) << name; // rounded elsewhere
    }
}

TEST(Muon, NewtonSchulzEqualsTheDefinition) {
    for (const char* shape : {"16x4", "33x17", "4x16", "64x48", "8x8"}) {
        std::string in = std::string("ns5.") + shape + ".in";
        auto expected = values(std::string("ns5.") + shape + ".out_f64");
        EXPECT_LT(distance(orthogonalised<double>(in, Dtype::f64), expected), 1e-12) << shape;
        EXPECT_LT(distance(orthogonalised<float>(in, Dtype::f32), expected), 5e-5) << shape;
        EXPECT_LT(distance(orthogonalised<float>(in, Dtype::bf16), expected), 5e-2) << shape;
    }
}

TEST(Muon, RefusesWhatIsNoMatrix) {
    Store store;
    EXPECT_THROW(muon_state(store, store.parameter("b", {5}, Dtype::f32)), Error);
    EXPECT_THROW(muon_adjust_from("match_rms"), Error);
}
