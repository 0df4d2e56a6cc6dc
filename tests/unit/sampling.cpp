// Sampling: distributions equal to those of transformers (goldens), draws that follow them, wrong input.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/io/safetensors.h"
#include "kernels/sample/sample.h"

using namespace nvl;

namespace {
struct Golden {
    Checkpoint file{NVL_SOURCE "/tests/golden/numerics/optim.safetensors"};
    std::vector<float> logits = read_as<float>(file.at("sample.logits_f32"));
    std::vector<int32_t> previous = read_as<int32_t>(file.at("sample.prev_ids"));
    static constexpr size_t V = 40, P = 4;
    std::span<const float> row(size_t r) const { return std::span(logits).subspan(r * V, V); }
    void expect(const char* name, const SamplingParams& p) const {
        std::vector<float> expected = read_as<float>(file.at(std::string("sample.") + name));
        for (size_t r = 0; r < 2; r++) {
            auto got = probabilities(row(r), p, {std::span(previous).subspan(r * P, P), {}});
            for (size_t v = 0; v < V; v++) {
                EXPECT_NEAR(got[v], expected[r * V + v], 2e-6) << name << " row " << r << " token " << v;
                EXPECT_EQ(got[v] == 0, expected[r * V + v] == 0) << name << " row " << r << " token " << v;
            }
        }
    }
};
} // namespace

TEST(Sampling, DistributionsEqualTransformers) {
    Golden g;
    g.expect("temp0.7", {.temperature = 0.7});
    g.expect("topk5", {.top_k = 5});
    g.expect("topp0.8", {.top_p = 0.8});
    g.expect("minp0.1", {.min_p = 0.1});
    g.expect("reppen1.3", {.repetition_penalty = 1.3});
    g.expect("temp0.8_minp0.05", {.temperature = 0.8, .min_p = 0.05});
    g.expect("temp1.5_topk10_topp0.9", {.temperature = 1.5, .top_k = 10, .top_p = 0.9});
}

TEST(Sampling, DrawsFollowTheDistribution) {
    Golden g;
    SamplingParams p{.temperature = 1.2, .top_k = 20, .top_p = 0.95};
    auto expected = probabilities(g.row(0), p);
    std::vector<double> seen(Golden::V);
    constexpr int N = 20000;
    Random random(7, "sample");
    for (uint64_t i = 0; i < N; i++) seen[size_t(sample(g.row(0), p, {}, random, i).token)]++;
    double chi_square = 0;
    int classes = 0;
    for (size_t v = 0; v < Golden::V; v++) {
        if (expected[v] == 0)
            EXPECT_EQ(seen[v], 0);
        else
            chi_square += std::pow(seen[v] - N * expected[v], 2) / (N * expected[v]), classes++;
    }
    EXPECT_GT(classes, 5);
    EXPECT_LT(chi_square, classes - 1 + 4 * std::sqrt(2.0 * (classes - 1)));
    Random other(8, "sample");
    int same = 0;
    for (uint64_t i = 0; i < 100; i++) {
        EXPECT_EQ(sample(g.row(0), p, {}, random, i).token, sample(g.row(0), p, {}, random, i).token);
        same += sample(g.row(0), p, {}, random, i).token == sample(g.row(0), p, {}, other, i).token;
    }
    EXPECT_LT(same, 90);
}

TEST(Sampling, GreedyAndTies) {
    std::vector<float> l(100, -1.0f);
    l[70] = l[31] = l[99] = 2.5f;
    EXPECT_EQ(greedy(l), 31);
    EXPECT_EQ(sample(l, {.temperature = 0}, {}, Random(1), 0).token, 31);
    auto p = probabilities(l, {.top_p = 1e-9});
    EXPECT_EQ(p[31], 1); // the crossing token stays, the lowest id of equals
    p = probabilities(l, {.top_k = 1});
    EXPECT_NEAR(p[99], 1.0 / 3, 1e-6); // top_k keeps what equals the k-th
    EXPECT_NEAR(sample(l, {.temperature = 0, .top_k = 1}, {}, Random(1), 0).logprob,
                2.5 - std::log(3 * std::exp(2.5) + 97 * std::exp(-1.0)), 1e-6);
}

TEST(Sampling, PenaltiesAndBias) {
    std::vector<float> l{1, 2, -1, 0.5f};
    std::vector<int32_t> prompt{0, 2}, answer{1, 1, 2};
    auto logit = [&](const SamplingParams& p, size_t v) { // relative to token 3, which nothing touches
        auto q = probabilities(l, p, {prompt, answer});
        return std::log(double(q[v]) / double(q[3])) + 0.5;
    };
    SamplingParams p{.presence_penalty = 0.3, .frequency_penalty = 0.2};
    EXPECT_NEAR(logit(p, 0), 1, 1e-5); // the prompt does not count
    EXPECT_NEAR(logit(p, 1), 2 - 0.3 - 0.4, 1e-5);
    EXPECT_NEAR(logit(p, 2), -1 - 0.3 - 0.2, 1e-5);
    p.repetition_penalty = 2;
    EXPECT_NEAR(logit(p, 0), 0.5, 1e-5);
    EXPECT_NEAR(logit(p, 1), 1 - 0.3 - 0.4, 1e-5);
    EXPECT_NEAR(logit(p, 2), -2 - 0.3 - 0.2, 1e-5);
    EXPECT_NEAR(logit({.logit_bias = {{0, 1.5f}}}, 0), 2.5, 1e-5);
    EXPECT_EQ(probabilities(l, {.logit_bias = {{1, -INFINITY}}})[1], 0);
}

TEST(Sampling, LargeVocabulary) { // top-p beyond the first runs of its partial sort, against a full sort
    std::vector<float> l(5000);
    for (size_t i = 0; i < l.size(); i++) l[i] = float(Random(3).normal(i)) * 0.5f;
    auto all = probabilities(l, {}), kept = probabilities(l, {.top_p = 0.9});
    std::vector<float> sorted = all;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    double mass = 0;
    size_t n = 0;
    while (mass < 0.9) mass += sorted[n++];
    size_t nonzero = 0;
    for (size_t i = 0; i < l.size(); i++) nonzero += kept[i] > 0;
    EXPECT_NEAR(double(nonzero), double(n), 1);
    EXPECT_GT(n, 2000u);
}

TEST(Sampling, RefusesNonsense) {
    std::vector<float> l{1, 2}, nan{1, NAN}, inf{1, INFINITY}, none;
    for (SamplingParams p : {SamplingParams{.temperature = -1},
                             {.temperature = NAN},
                             {.top_k = -1},
                             {.top_p = 0},
                             {.top_p = 1.5},
                             {.min_p = 2},
                             {.repetition_penalty = 0},
                             {.logit_bias = {{2, 1.0f}}}})
        EXPECT_THROW(sample(l, p, {}, Random(1), 0), Error);
    std::vector<int32_t> wrong{5};
    EXPECT_THROW(sample(l, {.presence_penalty = 1}, {{}, wrong}, Random(1), 0), Error);
    for (auto& bad : {nan, inf, none}) EXPECT_THROW(sample(bad, {}, {}, Random(1), 0), Error);
}
