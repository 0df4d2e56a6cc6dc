// Real models against what a trusted implementation computed with them.
//
// Greedy equality alone is no measure (the reference disagrees with itself where two tokens are nearly
// equally likely), so its tokens are given and what we find likely is compared; ours may choose another token
// only where its two best are closer than 0.3.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "infer/generate.h"
#include "infer/load.h"

namespace nvl {

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
inline Distance teacher_forced(LoadedModel& m, const Json& golden, size_t prompts,
                               double mean_tolerance = 1e-4) {
    Distance d;
    for (size_t p = 0; p < prompts; p++) {
        const Json& r = golden["f32_reference"][p];
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
                EXPECT_NEAR(sum / n, r["first_logits_mean"].get<double>(), mean_tolerance);
                EXPECT_NEAR(std::sqrt(squares / n), r["first_logits_rms"].get<double>(), mean_tolerance);
            }
            compared++;
        });
        EXPECT_EQ(compared, answer.size());
    }
    return d;
}

/// The greedy continuation of a prompt is the reference's; nothing if it became another text for a reason.
inline std::optional<Generation> expect_greedy(LoadedModel& m, const Json& r, double tolerance = 1e-3) {
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
            return {};
        }
        EXPECT_NEAR(g.logprobs[i], r["steps"][i]["logprob"].get<double>(), tolerance);
    }
    EXPECT_EQ(g.ids, theirs);
    EXPECT_EQ(g.text, r["gen_text"].get<std::string>());
    return g;
}

inline void expect_tokens(const Tokenizer& t, const Json& golden) {
    for (const Json& c : golden["tokenization"]) {
        std::string text = c["text"];
        EXPECT_EQ(Json(t.encode(text)), c["ids"]) << text;
        EXPECT_EQ(Json(t.encode(text, true, true)), c["ids_special"]) << text;
    }
}

} // namespace nvl
