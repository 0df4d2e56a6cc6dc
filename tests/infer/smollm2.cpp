// A real model against a trusted implementation: SmolLM2-135M-Instruct, dequantised.
//
// Greedy equality alone is no measure (the reference disagrees with itself where two tokens are nearly
// equally likely), so its tokens are given and what we find likely is compared; ours may choose another token
// only where its two best are closer than 0.3.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/io/file.h"
#include "infer/chat_format.h"
#include "infer/generate.h"
#include "infer/load.h"
#include "infer/perplexity.h"

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

// Sums of squares of differences and of values: their quotient is the NMSE.
struct Nmse {
    double difference = 0, value = 0;
    void add(double ours, double theirs) {
        difference += (ours - theirs) * (ours - theirs), value += theirs * theirs;
    }
    double operator()() const { return difference / value; }
};
struct Distance {
    Nmse logits, logprobs;
};

// Feeds the reference's tokens; compares the five likeliest of each step.
Distance teacher_forced(LoadedModel& m, size_t prompts) {
    Distance d;
    for (size_t p = 0; p < prompts; p++) {
        const Json& r = golden()["f32_reference"][p];
        std::vector<int32_t> ids = r["prompt_ids"], answer = r["gen_ids"];
        int64_t before = int64_t(ids.size()) - 1;
        ids.insert(ids.end(), answer.begin(), answer.end() - 1);
        Engine engine(*m.model, {.dtype = m.dtype, .tokens_per_sequence = int64_t(ids.size())});
        Engine::Feed feed{engine.open(), ids, Engine::Logits::all};
        size_t compared = 0;
        engine.feed({&feed, 1}, [&](size_t, int64_t i, std::span<const float> logits) {
            if (i < before) return;
            const Json& step = r["steps"][size_t(i - before)];
            for (const Json& t : step["top5"]) {
                int32_t id = t["id"];
                d.logits.add(logits[size_t(id)], t["logit"]);
                d.logprobs.add(log_probability(logits, id), t["logprob"]);
            }
            if (greedy(logits) != step["id"].get<int32_t>()) {
                EXPECT_LT(step["margin"].get<double>(), 0.3) << r["prompt"] << " token " << i - before;
            }
            if (i == before && m.dtype == Dtype::f32) {
                double sum = 0, squares = 0;
                for (float l : logits) sum += l, squares += double(l) * l;
                auto n = double(logits.size());
                EXPECT_NEAR(sum / n, r["first_logits_mean"].get<double>(), 1e-4);
                EXPECT_NEAR(std::sqrt(squares / n), r["first_logits_rms"].get<double>(), 1e-4);
            }
            compared++;
        });
        EXPECT_EQ(compared, answer.size());
    }
    return d;
}

TEST_F(SmolLM2, TokensOfTrickyTexts) {
    const Tokenizer& t = loaded(Dtype::f32).need_tokenizer();
    for (const Json& c : golden()["tokenization"]) {
        std::string text = c["text"];
        EXPECT_EQ(Json(t.encode(text)), c["ids"]) << text;
        EXPECT_EQ(Json(t.encode(text, true, true)), c["ids_special"]) << text;
    }
}
TEST_F(SmolLM2, LogProbabilitiesOfTheReference) {
    Distance d = teacher_forced(loaded(Dtype::f32), golden()["f32_reference"].size());
    RecordProperty("nmse", format("%.3g logits, %.3g log probabilities", d.logits(), d.logprobs()));
    EXPECT_LT(d.logits(), 1e-6);
    EXPECT_LT(d.logprobs(), 1e-6);
}
TEST_F(SmolLM2, Bf16StaysAsCloseAsTheReferencesOwnQuantisedPath) {
    Distance d = teacher_forced(loaded(Dtype::bf16), 2);
    EXPECT_LT(d.logits(), 1.1e-3);
}
TEST_F(SmolLM2, GeneratesWhatTheReferenceDoes) {
    LoadedModel& m = loaded(Dtype::f32);
    const Json& r = golden()["f32_reference"][0];
    Request request;
    request.prompt = m.need_tokenizer().encode(r["prompt"].get<std::string>(), false, true);
    EXPECT_EQ(Json(request.prompt), r["prompt_ids"]);
    request.sampling.temperature = 0, request.max_tokens = 32, request.stop_ids = m.stop_ids;
    Engine engine(*m.model, {.tokens_per_sequence = 64});
    Generation g = Generator(engine, &*m.tokenizer).run(request);
    std::vector<int32_t> theirs = r["gen_ids"];
    for (size_t i = 0; i < std::min(theirs.size(), g.ids.size()); i++) {
        if (theirs[i] != g.ids[i]) { // from here on it is another text
            EXPECT_LT(r["steps"][i]["margin"].get<double>(), 0.3) << i;
            return;
        }
        EXPECT_NEAR(g.logprobs[i], r["steps"][i]["logprob"].get<double>(), 1e-3);
    }
    EXPECT_EQ(g.ids, theirs);
    EXPECT_EQ(g.finish, Finish::stop);
    EXPECT_EQ(g.text, r["gen_text"].get<std::string>());
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
