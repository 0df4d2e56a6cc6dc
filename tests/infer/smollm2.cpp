// A real model against a trusted implementation: SmolLM2-135M-Instruct, dequantised.
//
// See reference.h for what is compared.
#include <gtest/gtest.h>

#include "engine/io/file.h"
#include "infer/chat_format.h"
#include "infer/generate.h"
#include "infer/load.h"
#include "infer/perplexity.h"
#include "reference.h"

using namespace nvl;

namespace {

const std::string PATH = std::string(NVL_SOURCE) + "/models/cache/SmolLM2-135M-Instruct.Q4_1.gguf";
const std::string GOLDEN = std::string(NVL_SOURCE) + "/tests/golden/real/";

const Json& golden() {
    static Json j = Json::parse(read_file(GOLDEN + "smollm2.json"));
    return j;
}

class SmolLM2 : public testing::Test {
protected:
    void SetUp() override {
        if (!exists(PATH)) GTEST_SKIP() << "no model in models/cache; tools/get_smollm2.sh obtains it";
    }
    static LoadedModel& loaded(Dtype dtype) {
        static std::map<Dtype, std::unique_ptr<LoadedModel>> models;
        auto& m = models[dtype];
        if (!m) m = load_for_inference(PATH, dtype);
        return *m;
    }
};

TEST_F(SmolLM2, TokensOfTrickyTexts) {
    const Tokenizer& t = loaded(Dtype::f32).need_tokenizer();
    for (const Json& c : golden()["tokenization"]) {
        std::string text = c["text"];
        EXPECT_EQ(Json(t.encode(text)), c["ids"]) << text;
        EXPECT_EQ(Json(t.encode(text, true, true)), c["ids_special"]) << text;
    }
}
TEST_F(SmolLM2, LogProbabilitiesOfTheReference) {
    Distance d = teacher_forced(loaded(Dtype::f32), golden(), golden()["f32_reference"].size());
    RecordProperty("nmse", format("%.3g logits, %.3g log probabilities", d.logits(), d.logprobs()));
    EXPECT_LT(d.logits(), 1e-6);
    EXPECT_LT(d.logprobs(), 1e-6);
}
TEST_F(SmolLM2, Bf16StaysAsCloseAsTheReferencesOwnQuantisedPath) {
    Distance d = teacher_forced(loaded(Dtype::bf16), golden(), 2);
    EXPECT_LT(d.logits(), 1.1e-3);
}
TEST_F(SmolLM2, GeneratesWhatTheReferenceDoes) {
    if (auto g = expect_greedy(loaded(Dtype::f32), golden()["f32_reference"][0]))
        EXPECT_EQ(g->finish, Finish::stop);
}
TEST_F(SmolLM2, ChatsInChatMlWithItsSystemMessage) {
    ChatFormat f(loaded(Dtype::f32).need_tokenizer());
    EXPECT_STREQ(f.name(), "ChatML");
    EXPECT_EQ(f.default_system(), "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    std::string text = "<|im_start|>system\n" + f.default_system() +
                       "<|im_end|>\n<|im_start|>user\nHi there!<|im_end|>\n<|im_start|>assistant\n";
    EXPECT_EQ(f.prompt({{user_says("Hi there!")}}), loaded(Dtype::f32).tokenizer->encode(text, true));
}

void expect_perplexity(LoadedModel& m, int64_t chunks) {
    const Json& theirs = golden()["f32_perplexity"];
    std::vector<double> nll = theirs["nll_second_half_per_chunk"];
    double before = 0;
    Perplexity all = perplexity(*m.model, m.need_tokenizer(), m.dtype, read_file(GOLDEN + "kjv_john.txt"),
                                512, chunks, [&](const Perplexity& p, int64_t) {
                                    EXPECT_NEAR((p.nll - before) / 255, nll[size_t(p.chunks - 1)], 0.005)
                                        << "chunk " << p.chunks;
                                    before = p.nll;
                                });
    EXPECT_EQ(all.scored, 255 * chunks);
    EXPECT_EQ(all.tokens, theirs["n_tokens_total"].get<int64_t>());
    if (chunks == theirs["chunks"].get<int64_t>()) {
        double expected = theirs["ppl_second_half"];
        EXPECT_NEAR(all.perplexity() / expected, 1, 0.005);
    }
}
TEST_F(SmolLM2, PerplexityOfTheFirstChunk) { expect_perplexity(loaded(Dtype::f32), 1); }
// All that the reference scored; 6 s of two cores. In `make test-full`.
TEST_F(SmolLM2, DISABLED_PerplexityOfAllChunks) {
    expect_perplexity(loaded(Dtype::f32), 4);
    expect_perplexity(loaded(Dtype::bf16), 4);
}

} // namespace
