// The loop from prompt to text: what ends it, what it shows, and that nothing but the request decides it.
#include <gtest/gtest.h>
#include <unistd.h>

#include "data/chat/with_tokenizer.h"
#include "engine/base/text.h"
#include "infer/generate.h"
#include "infer/stop_text.h"
#include "tests/infer/scripted.h"
#include "tests/unit/files.h"
#include "tests/unit/tokenizer_help.h"

using namespace nvl;
using namespace nvl::test;

namespace {

const Tokenizer& bytes_tokenizer() { // 256 bytes, few merges, our special tokens
    static Tokenizer t = train_on(prose(), 300);
    return t;
}
std::vector<int32_t> letters(std::string_view text) { // one id per byte
    std::vector<int32_t> ids;
    for (char c : text)
        for (int32_t id = 0; id < 256; id++)
            if (bytes_tokenizer().piece(id) == std::string_view(&c, 1)) ids.push_back(id);
    return ids;
}

struct Fixture {
    Scripted model;
    Engine engine;
    Generator generator;
    explicit Fixture(const std::vector<int32_t>& script, int64_t context = 256, int64_t sequences = 1)
        : model(bytes_tokenizer().size(), context, chain(script)), engine(model, {.sequences = sequences}),
          generator(engine, &bytes_tokenizer()) {}
};
Request greedily(std::vector<int32_t> prompt, int64_t max_tokens = 50) {
    Request r;
    r.prompt = std::move(prompt), r.sampling.temperature = 0, r.max_tokens = max_tokens;
    return r;
}

TEST(StopText, HoldsBackWhatMayBeginAStop) {
    StopText s({"END", "ab"});
    EXPECT_EQ(s.push("helloE"), "hello");
    EXPECT_EQ(s.push("N"), "");
    EXPECT_EQ(s.push("o"), "ENo");
    EXPECT_EQ(s.push("E"), "");
    EXPECT_EQ(s.flush(), "E");
    EXPECT_EQ(s.push("xENDab"), "x");
    EXPECT_TRUE(s.found());
    EXPECT_EQ(s.push("more") + s.flush(), "");
    EXPECT_NE(error_of([] { StopText({""}); }), "");
}
TEST(StopText, ShowsTheSameHoweverTextIsCut) {
    std::string text = "aabaacaabaaab ends", stop = "aaab";
    for (size_t piece = 1; piece < text.size(); piece++) {
        StopText s({stop});
        std::string shown;
        for (size_t i = 0; i < text.size(); i += piece) shown += s.push(text.substr(i, piece));
        EXPECT_EQ(shown + s.flush(), "aabaacaab");
        EXPECT_TRUE(s.found());
    }
}

TEST(Generate, StopStringsAcrossTokensAreNeverShown) {
    Fixture f(letters("abcdefghij"));
    Request r = greedily(letters("a"), 6);
    r.stop = {"xyz", "ef"};
    std::string seen;
    auto show = [&](size_t, Part::Kind kind, std::string_view text) {
        EXPECT_EQ(kind, Part::text);
        EXPECT_EQ(text.find('e'), text.npos);
        seen += text;
        return true;
    };
    Generation g = f.generator.run(r, show);
    EXPECT_EQ(g.text, "bcd");
    EXPECT_EQ(seen, "bcd");
    EXPECT_EQ(g.ids, letters("bcdef"));
    EXPECT_EQ(g.finish, Finish::stop);

    r.stop = {"ghX"}; // held back until the end, then shown
    seen.clear();
    EXPECT_EQ(f.generator.run(r, nullptr).text, "bcdefg");
    EXPECT_EQ(f.generator.run(r).finish, Finish::length);
}
TEST(Generate, StopIdsEndTheAnswerAndAreNoText) {
    Fixture f(letters("abcdef"));
    Request r = greedily(letters("a"));
    r.stop_ids = letters("d");
    Generation g = f.generator.run(r);
    EXPECT_EQ(g.ids, letters("bcd"));
    EXPECT_EQ(g.logprobs.size(), 3u);
    EXPECT_NEAR(g.logprobs[0], 0, 1e-6);
    EXPECT_EQ(g.text, "bc");
    EXPECT_EQ(g.finish, Finish::stop);
}
TEST(Generate, ShowsWholeCharactersOnly) {
    std::string text = "x\xC3\xA9y\xE4\xBD\xA0z\xF0\x9F\x98\x80w";
    Fixture f(letters(text));
    std::string seen;
    Generation g = f.generator.run(greedily(letters("x"), int64_t(text.size()) - 1),
                                   [&](size_t, Part::Kind, std::string_view piece) {
                                       EXPECT_EQ(utf8_complete(piece), piece.size());
                                       seen += piece;
                                       return true;
                                   });
    EXPECT_EQ(g.text, text.substr(1));
    EXPECT_EQ(seen, g.text);
    g = f.generator.run(greedily(letters("x"), 1)); // ends inside a character
    EXPECT_EQ(g.text, "\xEF\xBF\xBD");
}
TEST(Generate, TheCalculatorAnswersWhileTheModelSpeaks) {
    ChatTemplate chat(chat_tokenizer(bytes_tokenizer()));
    auto script = letters("a ");
    script.push_back(chat.python_start);
    for (int32_t id : letters("12*3")) script.push_back(id);
    script.push_back(chat.python_end);
    Fixture f(script);
    auto second = chain({chat.output_end, letters("!")[0], chat.assistant_end});
    for (auto [from, to] : second) host<float>(f.model.weights()[0].second)[from * f.model.dims.V + to] = 30;

    Request r = greedily(letters("a"));
    r.tools = &chat, r.stop_ids = {chat.assistant_end};
    std::vector<std::pair<Part::Kind, std::string>> seen;
    r.sequence = f.engine.open();
    Generation g = f.generator.run(r, [&](size_t, Part::Kind kind, std::string_view text) {
        if (seen.empty() || seen.back().first != kind) seen.push_back({kind, ""});
        seen.back().second += text;
        return true;
    });
    std::vector<std::pair<Part::Kind, std::string>> wanted{
        {Part::text, " "}, {Part::python, "12*3"}, {Part::python_output, "36"}, {Part::text, "!"}};
    EXPECT_EQ(seen, wanted);
    EXPECT_EQ(g.text, " !");
    EXPECT_EQ(g.finish, Finish::stop);
    std::vector<int32_t> forced;
    for (size_t i = 0; i < g.ids.size(); i++)
        if (g.forced[i]) {
            forced.push_back(g.ids[i]);
            EXPECT_EQ(g.logprobs[i], 0);
        }
    std::vector<int32_t> result{chat.output_start};
    for (int id : bytes_tokenizer().encode("36")) result.push_back(id);
    result.push_back(chat.output_end);
    EXPECT_EQ(forced, result);
    EXPECT_EQ(f.engine.length(r.sequence), int64_t(r.prompt.size() + g.ids.size() - 1)); // all but the last
    EXPECT_EQ(chat.parse_answer(g.ids).parts[2], (Part{Part::python_output, "36"}));
}
TEST(Generate, CancelledByTheReaderOrByAFlag) {
    Fixture f(letters("abcdefgh"));
    Request r = greedily(letters("a"));
    Generation g = f.generator.run(r, [](size_t, Part::Kind, std::string_view text) { return text != "d"; });
    EXPECT_EQ(g.ids, letters("bcd"));
    EXPECT_EQ(g.finish, Finish::cancelled);
    g = f.generator.run(r, [&](size_t, Part::Kind, std::string_view text) {
        if (text == "c") f.generator.cancel = true;
        return true;
    });
    EXPECT_EQ(g.ids, letters("bc"));
    EXPECT_EQ(g.finish, Finish::cancelled);
    EXPECT_EQ(f.engine.free_sequences(), 1);
}
TEST(Generate, AFullContextEndsTheAnswer) {
    Fixture f(letters("abcdefghijklmnopqrstuvwxyz"), 16);
    Generation g = f.generator.run(greedily(letters("abc"), 100));
    EXPECT_EQ(g.ids, letters("defghijklmnopq")); // 16 tokens in the cache, and the one that follows
    EXPECT_EQ(g.finish, Finish::context);
    g = f.generator.run(greedily(letters("abcdefghijklmnop"), 100));
    EXPECT_EQ(g.ids, letters("q"));
}
TEST(Generate, WrongRequestsAreRefusedBeforeAnyRuns) {
    Fixture f(letters("ab"), 16);
    auto refused = [&](Request r) {
        std::vector<Request> both{greedily(letters("a"), 2), r};
        bool ran = false;
        std::string e = error_of(
            [&] { f.generator.run(both, [&](size_t, Part::Kind, std::string_view) { return ran = true; }); });
        EXPECT_FALSE(ran);
        EXPECT_EQ(f.engine.free_sequences(), 1);
        return e;
    };
    EXPECT_NE(refused(greedily({})).find("no tokens"), std::string::npos);
    EXPECT_NE(refused(greedily(letters("abcdefghijklmnopq"))).find("17 tokens, the context holds 16"),
              std::string::npos);
    EXPECT_NE(refused(greedily({1, 300})).find("token id 300"), std::string::npos);
    EXPECT_NE(refused(greedily({-1})).find("token id -1"), std::string::npos);
    EXPECT_NE(refused(greedily({1}, 0)).find("expected 1 or more"), std::string::npos);
    Request r = greedily({1});
    r.sampling.top_p = 2;
    EXPECT_NE(refused(r).find("top_p"), std::string::npos);
    Generator without(f.engine);
    r = greedily({1});
    r.stop = {"x"};
    EXPECT_NE(error_of([&] { without.run(r); }).find("tokenizer"), std::string::npos);
}

// A small transformer, so that the cache matters.
struct Transformer {
    Store store;
    std::unique_ptr<Model> model;
    explicit Transformer(const std::string& type = "gpt2", Dtype dtype = Dtype::f32) {
        Json c = type == "gpt2" ? Json{{"n_embd", 32}, {"n_head", 2}, {"n_layer", 2}, {"n_positions", 256}}
                                : Json{{"hidden_size", 32},        {"num_attention_heads", 4},
                                       {"num_key_value_heads", 2}, {"num_hidden_layers", 2},
                                       {"intermediate_size", 80},  {"max_position_embeddings", 256}};
        c["model_type"] = type, c["vocab_size"] = bytes_tokenizer().size(), c["initializer_range"] = 0.15;
        model = make_model(c);
        model->allocate(store, dtype, false);
        model->initialise(3);
    }
};
std::vector<Request> varied() {
    std::vector<Request> all;
    for (int i = 0; i < 7; i++) {
        Request r;
        for (int k = 0; k < 1 + i * i; k++) r.prompt.push_back((i * 31 + k * 7) % 256);
        r.sampling = {.temperature = i % 3 ? 1.0 : 0.0, .top_k = i % 2 ? 40 : 0};
        if (i == 4) r.sampling.repetition_penalty = 1.3;
        r.seed = 11, r.stream = uint64_t(i);
        r.max_tokens = 5 + (i * 13) % 40;
        if (i == 5) r.stop = {"e", "a", "\n"};
        all.push_back(r);
    }
    return all;
}
bool same(const Generation& a, const Generation& b) {
    return a.ids == b.ids && a.logprobs == b.logprobs && a.text == b.text && a.finish == b.finish;
}

TEST(Generate, TheBatchDecidesNothing) {
    Transformer t;
    auto requests = varied();
    std::vector<Generation> alone;
    for (const Request& r : requests) {
        Engine e(*t.model, {});
        alone.push_back(Generator(e, &bytes_tokenizer()).run(r));
    }
    for (int64_t sequences : {1, 3, 7}) {
        Engine e(*t.model, {.sequences = sequences, .step_tokens = 24});
        Generator generator(e, &bytes_tokenizer());
        auto batch = generator.run(requests);
        for (size_t i = 0; i < batch.size(); i++)
            EXPECT_TRUE(same(batch[i], alone[i])) << i << " of " << sequences << " at once";
        EXPECT_EQ(e.free_sequences(), sequences);
    }
}
TEST(Generate, PackedWeightsChangeNoBit) {
    for (const char* type : {"gpt2", "qwen3"})
        for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
            Transformer t(type, dtype);
            std::vector<Generation> results[2];
            for (bool pack : {false, true}) {
                Engine e(*t.model, {.dtype = dtype, .sequences = 3, .pack = pack});
                size_t packed = 0;
                for (const Step& s : e.program().steps())
                    packed += std::string(s.kernel).rfind("linear_packed", 0) == 0;
                EXPECT_EQ(packed, pack ? (type[0] == 'g' ? 9u : 15u) : 0u) << type; // 2 layers and the head
                results[pack] = Generator(e, &bytes_tokenizer()).run(varied());
            }
            for (size_t i = 0; i < results[0].size(); i++) EXPECT_TRUE(same(results[0][i], results[1][i]));
        }
}
TEST(Generate, ADecodeStepReadsEveryMatrixOnce) {
    Transformer tied("gpt2"), untied("qwen3");
    int64_t V = bytes_tokenizer().size();
    Engine a(*tied.model, {}), b(*untied.model, {});
    int64_t cache = 2 * 2 * 10 * 4; // keys and values, layers, tokens, bytes of a number
    EXPECT_EQ(a.decode_bytes(10),
              double((tied.model->parameters() - 255 * 32) * 4 + cache * 32)); // positions
    EXPECT_EQ(b.decode_bytes(10), double((untied.model->parameters() - (V - 1) * 32) * 4 + cache * 16));
}
TEST(Generate, SeedsAndStreamsDecideTheDraws) {
    Transformer t;
    Engine e(*t.model, {});
    Generator generator(e, &bytes_tokenizer());
    Request r;
    r.prompt = {1, 2, 3}, r.max_tokens = 30;
    Generation first = generator.run(r);
    EXPECT_TRUE(same(first, generator.run(r)));
    r.seed = 1;
    EXPECT_NE(generator.run(r).ids, first.ids);
    r.seed = 0, r.stream = 1;
    EXPECT_NE(generator.run(r).ids, first.ids);
    r.stream = 0; // the same draws go on where a shorter answer ended
    r.prompt.insert(r.prompt.end(), first.ids.begin(), first.ids.begin() + 10);
    EXPECT_EQ(generator.run(r).ids[0], first.ids[10]);
}
TEST(Generate, AReusedSequenceGivesTheSame) {
    Transformer t;
    Engine e(*t.model, {.sequences = 2});
    Generator generator(e, &bytes_tokenizer());
    Request r = greedily({5, 6, 7, 8}, 12);
    r.sequence = e.open();
    Generation first = generator.run(r);
    r.prompt.insert(r.prompt.end(), first.ids.begin(), first.ids.end());
    r.prompt.push_back(9);
    Generation reused = generator.run(r);
    EXPECT_EQ(generator.speed.prefill_tokens, 2); // the last token of the answer, and the new one
    r.sequence = -1;
    EXPECT_TRUE(same(reused, generator.run(r)));
    r.sequence = 0, r.prompt.resize(3);
    EXPECT_NE(error_of([&] { generator.run(r); }).find("expected fewer"), std::string::npos);
}

} // namespace
