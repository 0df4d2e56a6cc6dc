// The cache changes no bit: logits of chunks, batches and reused prefixes equal those of the training
// forward.
#include <gtest/gtest.h>

#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/plan/program.h"
#include "infer/engine.h"
#include "models/checkpoint.h"

using namespace nvl;

namespace {

using Logits = std::vector<std::vector<float>>; // per token

struct Small {
    Store store;
    std::unique_ptr<Model> model;
    std::vector<int32_t> ids;
    Dtype dtype;
    explicit Small(const std::string& type, Dtype d, int64_t window = 0) : dtype(d) {
        Json c =
            type == "gpt2"
                ? Json{{"model_type", "gpt2"}, {"n_embd", 48},       {"n_head", 3},
                       {"n_layer", 2},         {"n_positions", 512}, {"vocab_size", 97}}
                : Json{{"model_type", type},         {"hidden_size", 48}, {"num_attention_heads", 6},
                       {"num_key_value_heads", 2},   {"head_dim", 16},    {"num_hidden_layers", 3},
                       {"intermediate_size", 80},    {"vocab_size", 97},  {"max_position_embeddings", 512},
                       {"tie_word_embeddings", true}};
        if (window) c["sliding_window"] = window, c["use_sliding_window"] = true, c["max_window_layers"] = 1;
        c["initializer_range"] = 0.2;
        model = make_model(c);
        model->allocate(store, dtype, false);
        model->initialise(3);
        for (uint64_t i = 0; i < 150; i++) ids.push_back(int32_t(Random(9).below(i, 97)));
    }
    // What training computes: one packed pass without a cache.
    Logits uncached(size_t n) {
        Tape t;
        Recording r(t);
        t.no_grad();
        auto T = int64_t(n);
        Tensor tokens = t.input("tokens", {T}, Dtype::i32), positions = t.input("positions", {T}, Dtype::i32);
        Tensor starts = t.input("starts", {2}, Dtype::i32);
        Tensor logits = t.keep(model->head_logits(model->hidden({tokens, positions, starts})));
        Program p(t);
        for (int64_t i = 0; i < T; i++)
            p.data<int32_t>(tokens)[i] = ids[size_t(i)], p.data<int32_t>(positions)[i] = int32_t(i);
        p.data<int32_t>(starts)[0] = 0, p.data<int32_t>(starts)[1] = int32_t(T);
        p.run({.poison = true});
        Logits rows;
        for (int64_t i = 0; i < T; i++)
            rows.emplace_back(p.data<float>(logits) + i * 97, p.data<float>(logits) + (i + 1) * 97);
        return rows;
    }
    void append(Engine& e, int sequence, size_t from, size_t to, Logits& rows) {
        Engine::Feed f{sequence, std::span(ids).subspan(from, to - from), Engine::Logits::all};
        e.feed({&f, 1},
               [&](size_t, int64_t, std::span<const float> l) { rows.emplace_back(l.begin(), l.end()); });
    }
};

class Cached : public testing::TestWithParam<std::tuple<const char*, Dtype, int>> {};

TEST_P(Cached, ChunksGiveTheBitsOfTheWhole) {
    auto [type, dtype, window] = GetParam();
    Small s(type, dtype, window);
    Logits whole = s.uncached(150);
    for (size_t chunk : {1, 3, 17, 64, 150}) {
        Engine e(*s.model, {.dtype = dtype, .step_tokens = 40});
        int sequence = e.open();
        Logits rows;
        for (size_t at = 0; at < 150; at += chunk)
            s.append(e, sequence, at, std::min<size_t>(150, at + chunk), rows);
        EXPECT_EQ(rows, whole) << "chunks of " << chunk;
    }
}
TEST_P(Cached, BatchesThreadsAndReusedPrefixesToo) {
    auto [type, dtype, window] = GetParam();
    Small s(type, dtype, window);
    Logits whole = s.uncached(150);
    int before = threads();
    for (int n : {1, 3}) {
        set_threads(n);
        Engine e(*s.model, {.dtype = dtype, .sequences = 3, .step_tokens = 64});
        int a = e.open(), b = e.open(), c = e.open();
        Logits ra, rb, rc;
        s.append(e, b, 0, 70, rb); // pages of the three lie mixed
        s.append(e, a, 0, 10, ra);
        e.truncate(b, 20); // and some are given back
        rb.resize(20);
        size_t at[3] = {10, 20, 0};
        while (at[0] < 150 || at[1] < 150 || at[2] < 150) {
            std::vector<Engine::Feed> feeds;
            std::vector<Logits*> rows;
            int sequence[3] = {a, b, c};
            Logits* to[3] = {&ra, &rb, &rc};
            for (size_t k = 0; k < 3; k++) {
                size_t step = std::min<size_t>(1 + 4 * k, 150 - at[k]);
                if (!step) continue;
                feeds.push_back({sequence[k], std::span(s.ids).subspan(at[k], step), Engine::Logits::all});
                rows.push_back(to[k]), at[k] += step;
            }
            e.feed(feeds, [&](size_t f, int64_t, std::span<const float> l) {
                rows[f]->emplace_back(l.begin(), l.end());
            });
        }
        EXPECT_EQ(ra, whole);
        EXPECT_EQ(rb, whole);
        EXPECT_EQ(rc, whole);
    }
    set_threads(before);
}

INSTANTIATE_TEST_SUITE_P(
    Models, Cached,
    testing::Values(std::tuple{"llama", Dtype::f32, 0}, std::tuple{"qwen3", Dtype::f32, 0},
                    std::tuple{"qwen3", Dtype::bf16, 0}, std::tuple{"qwen2", Dtype::f32, 50},
                    std::tuple{"gpt2", Dtype::f32, 0}, std::tuple{"gpt2", Dtype::bf16, 0}));

TEST(Engine, RefusesWhatDoesNotFit) {
    Small s("llama", Dtype::f32);
    Engine e(*s.model, {.sequences = 1, .tokens_per_sequence = 64, .step_tokens = 16});
    int sequence = e.open();
    EXPECT_THROW(e.open(), Error);
    Logits rows;
    EXPECT_THROW(s.append(e, sequence, 0, 65, rows), Error);
    EXPECT_EQ(e.length(sequence), 0) << "nothing was appended";
    s.append(e, sequence, 0, 64, rows);
    std::vector<int32_t> bad{97};
    Engine::Feed f{sequence, bad};
    EXPECT_THROW(e.feed({&f, 1}, [](size_t, int64_t, std::span<const float>) {}), Error);
    e.close(sequence);
    EXPECT_EQ(e.open(), sequence);
}

} // namespace
