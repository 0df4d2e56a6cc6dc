// Losses against PyTorch (goldens), no tokens, wrong labels, and bits of a token alone or in a batch.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/base/rng.h"
#include "engine/io/safetensors.h"
#include "engine/plan/program.h"
#include "kernels/linear/linear.h"
#include "kernels/loss/linear_cross_entropy.h"

using namespace nvl;

namespace {

void randomise(const Tensor& t, uint64_t key) {
    for (int64_t i = 0; i < t.shape().numel(); i++)
        host<float>(t)[i] = float(Random(key).normal(uint64_t(i)));
}

// The golden's loss is a mean over the valid tokens: the seed says so.
TEST(Loss, EqualsPyTorch) {
    Checkpoint golden(NVL_SOURCE "/tests/golden/numerics/optim.safetensors");
    auto logits = read_as<double>(golden.at("ce.logits"));
    auto labels = read_as<int32_t>(golden.at("ce.labels"));
    int64_t T = int64_t(labels.size()), V = int64_t(logits.size()) / T;
    double valid = 0;
    for (int32_t l : labels) valid += l >= 0;
    for (double z : {0.0, 1e-4}) {
        // logits = x I^T, so that the gradient of x is the gradient of the logits
        Store store;
        Tensor x = store.parameter("x", {T, V}, Dtype::f64), w = store.tensor("w", {V, V}, Dtype::f64),
               y = store.tensor("labels", {T}, Dtype::i32), seed = store.tensor("seed", {1}, Dtype::f64);
        std::copy(logits.begin(), logits.end(), host<double>(x));
        std::copy(labels.begin(), labels.end(), host<int32_t>(y));
        for (int64_t v = 0; v < V; v++) host<double>(w)[v * V + v] = 1;
        host<double>(seed)[0] = 1 / valid;
        Tape t;
        Recording recording(t);
        Tensor loss = t.keep(linear_cross_entropy(x, w, y, {.z_loss = z, .fuse_backward = true}).loss);
        t.seed(loss, seed);
        t.backward({x});
        Program program(t);
        program.run();
        std::string name = z == 0 ? "ce.plain" : "ce.zloss1e_4";
        EXPECT_NEAR(*program.data<double>(loss) / valid, read_as<double>(golden.at(name + ".loss"))[0],
                    1e-12);
        auto expected = read_as<double>(golden.at(name + ".grad"));
        for (size_t i = 0; i < expected.size(); i++)
            EXPECT_NEAR(host<double>(gradient_of(x))[i], expected[i], 1e-12) << name << " " << i;
    }
}

// One program, run with fewer tokens: each token's numbers stay the same, bit for bit; none at all gives
// zeros.
TEST(Loss, ATokensBitsDependOnItAlone) {
    constexpr int64_t T = 9, C = 40, V = 70;
    Store store;
    Tensor x = store.parameter("x", {T, C}, Dtype::f32), w = store.parameter("w", {V, C}, Dtype::f32),
           b = store.parameter("b", {C}, Dtype::f32), h = store.parameter("h", {C, C}, Dtype::f32),
           labels = store.tensor("labels", {T}, Dtype::i32);
    randomise(x, 1), randomise(w, 2), randomise(h, 3), randomise(b, 4);
    for (int64_t i = 0; i < T; i++) host<int32_t>(labels)[i] = int32_t(i * 11 % V);
    Tape t;
    Recording recording(t);
    Dim rows = t.capacity(T);
    CrossEntropy r =
        linear_cross_entropy(linear(with_rows(x, rows), h, b), w, with_rows(labels, rows), {.chunk_rows = 4});
    t.keep(r.loss), t.keep(r.token), t.keep(r.lse);
    t.seed(r.loss, {});
    t.backward({w, h, b, x});
    Program program(t);
    auto run = [&](int64_t n) {
        program.run({.counts = {n}, .poison = true});
        std::vector<float> all(program.data<float>(r.token), program.data<float>(r.token) + n);
        all.insert(all.end(), host<float>(gradient_of(x)), host<float>(gradient_of(x)) + n * C);
        return all;
    };
    std::vector<float> whole = run(T);
    for (int64_t n : {1, 4, 5}) {
        std::vector<float> part = run(n);
        for (int64_t i = 0; i < n; i++) EXPECT_EQ(part[size_t(i)], whole[size_t(i)]);
        for (int64_t i = 0; i < n * C; i++) EXPECT_EQ(part[size_t(n + i)], whole[size_t(T + i)]);
    }
    run(0);
    EXPECT_EQ(*program.data<float>(r.loss), 0);
    for (const Tensor& p : {w, h, b})
        for (int64_t i = 0; i < p.shape().numel(); i++) ASSERT_EQ(host<float>(gradient_of(p))[i], 0);
}

TEST(Loss, LabelsBeyondTheVocabularyAndShapesAreErrors) {
    Store store;
    Tensor x = store.tensor("x", {3, 4}, Dtype::f32), w = store.tensor("w", {5, 4}, Dtype::f32),
           labels = store.tensor("labels", {3}, Dtype::i32), few = store.tensor("few", {2}, Dtype::i32);
    host<int32_t>(labels)[2] = 5;
    Tape t(Tape::eager);
    Recording recording(t);
    EXPECT_THROW(linear_cross_entropy(x, w, labels), Error);
    EXPECT_THROW(cross_entropy(linear(x, w), labels), Error);
    EXPECT_THROW(linear_cross_entropy(x, w, few), Error);
    EXPECT_THROW(linear_cross_entropy(x, x, labels), Error);
    EXPECT_THROW(linear(x, store.tensor("v", {5, 3}, Dtype::f32)), Error);
    EXPECT_THROW(linear(x, store.tensor("v", {5, 4}, Dtype::bf16)), Error);
    EXPECT_THROW(linear(x, w, store.tensor("bias", {4}, Dtype::f32)), Error);
}

TEST(Loss, NaNShows) {
    Store store;
    Tensor x = store.tensor("x", {2, 3}, Dtype::f32), w = store.tensor("w", {40, 3}, Dtype::f32),
           labels = store.tensor("labels", {2}, Dtype::i32);
    randomise(x, 1), randomise(w, 2);
    host<float>(x)[4] = NAN;
    Tape t(Tape::eager);
    Recording recording(t);
    CrossEntropy r = linear_cross_entropy(x, w, labels);
    auto value = [](const Tensor& y, int64_t i) { return host<float>(y)[i]; };
    EXPECT_TRUE(std::isfinite(value(r.token, 0)));
    EXPECT_TRUE(std::isnan(value(r.token, 1)));
    EXPECT_TRUE(std::isnan(value(r.loss, 0)));
}

} // namespace
