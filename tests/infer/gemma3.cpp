// A real model against a trusted implementation: Gemma 3 270M, dequantised. See reference.h.
#include <gtest/gtest.h>

#include "engine/io/file.h"
#include "infer/perplexity.h"
#include "reference.h"

using namespace nvl;

namespace {

const std::string PATH = std::string(NVL_SOURCE) + "/models/cache/gemma-3-270m-q4_k_m.gguf";
const std::string GOLDEN = std::string(NVL_SOURCE) + "/tests/golden/real/";

const Json& golden() {
    static Json j = Json::parse(read_file(GOLDEN + "gemma3.json"));
    return j;
}

// The reference looks its GELU up in a table of f16: single numbers differ more than SmolLM2's.
constexpr double TOLERANCE = 3e-3;

class Gemma3 : public testing::Test {
protected:
    void SetUp() override {
        if (!exists(PATH)) GTEST_SKIP() << "no model in models/cache; tools/get_models.sh gemma3 obtains it";
    }
    static LoadedModel& loaded() {
        static auto model = load_for_inference(PATH, Dtype::f32);
        return *model;
    }
};

TEST_F(Gemma3, TokensOfTrickyTexts) { expect_tokens(load_tokenizer(PATH), golden()); }
TEST_F(Gemma3, LogProbabilitiesOfTheReference) {
    Distance d = teacher_forced(loaded(), golden(), golden()["f32_reference"].size(), TOLERANCE);
    RecordProperty("nmse", format("%.3g logits, %.3g log probabilities", d.logits(), d.logprobs()));
    EXPECT_LT(d.logits(), 1e-6);
    EXPECT_LT(d.logprobs(), 1e-6);
}
TEST_F(Gemma3, GeneratesWhatTheReferenceDoes) {
    expect_greedy(loaded(), golden()["f32_reference"][0], TOLERANCE);
}
TEST_F(Gemma3, PerplexityOfTheFirstChunk) {
    const Json& theirs = golden()["f32_perplexity"];
    LoadedModel& m = loaded();
    Perplexity p = perplexity(*m.model, m.need_tokenizer(), m.dtype, read_file(GOLDEN + "kjv_john.txt"), 512,
                              1, [](const Perplexity&, int64_t) {});
    EXPECT_EQ(p.tokens, theirs["n_tokens_total"].get<int64_t>());
    EXPECT_NEAR(p.nll / double(p.scored), theirs["nll_second_half_per_chunk"][0].get<double>(), 0.005);
}

} // namespace
