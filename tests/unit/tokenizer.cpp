// data/tokenizer: encode, decode, special tokens, streaming, goldens of a real model.
#include <gtest/gtest.h>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "tokenizer_help.h"

using namespace nvl;
using namespace nvl::test;
using Json = nlohmann::json;

static const std::string GOLDEN = std::string(NVL_SOURCE) + "/tests/golden/real/";

static Tokenizer smollm2_part() {
    Json j = Json::parse(read_file(GOLDEN + "smollm2_vocabulary.json"));
    std::vector<std::string> tokens(j["size"].get<size_t>());
    std::vector<int> types(tokens.size(), 1);
    for (auto& t : j["tokens"]) tokens[t[0].get<size_t>()] = t[1], types[t[0].get<size_t>()] = t[2];
    return Tokenizer::from_vocabulary(tokens, j["merges"], types, j["pre"], j["bos"], j["eos"], false);
}

static void expect_goldens(const Tokenizer& t) {
    Json golden = Json::parse(read_file(GOLDEN + "smollm2_tokens.json"));
    int cases = 0;
    for (auto& g : golden["tokenization"]) {
        std::string text = g["text"];
        EXPECT_EQ(t.encode(text), g["ids"].get<std::vector<int>>()) << text;
        EXPECT_EQ(t.encode(text, true, true), g["ids_special"].get<std::vector<int>>()) << text;
        cases++;
    }
    EXPECT_EQ(cases, 20);
}
TEST(Tokenizer, IdsOfSmolLM2) { expect_goldens(smollm2_part()); }
TEST(Tokenizer, IdsOfSmolLM2FromItsFile) {
    std::string path = std::string(NVL_SOURCE) + "/models/cache/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!exists(path)) GTEST_SKIP() << path << " is not here";
    Tokenizer t = load_tokenizer(path);
    expect_goldens(t);
    EXPECT_EQ(t.size(), 49152);
    EXPECT_NE(t.chat_template().find("<|im_start|>"), std::string::npos);
    std::string out = folder("smollm2");
    t.save(out);
    Tokenizer again = load_tokenizer(out);
    expect_goldens(again);
    EXPECT_EQ(again.hash(), t.hash());
}

TEST(Tokenizer, EveryCodePointAndEveryByteComesBack) {
    Tokenizer t = train_on(prose(), 400);
    EXPECT_EQ(t.missing_bytes(), 0);
    std::string all;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c < 0xE000) continue;
        append_utf8(all, c);
        if (c % 7 == 0) all += ' ';
    }
    EXPECT_TRUE(t.decode(t.encode(all)) == all);
    std::string bytes;
    Dice dice{1};
    for (int i = 0; i < 200000; i++) bytes += char(dice(256));
    EXPECT_TRUE(t.decode(t.encode(bytes)) == bytes);
    for (int b = 0; b < 256; b++) {
        std::string one(1, char(b));
        EXPECT_EQ(t.encode(one),
                  std::vector<int>{
                      int(std::find(bytes_by_letter(), bytes_by_letter() + 256, b) - bytes_by_letter())});
    }
}

TEST(Tokenizer, TextCannotForgeSpecialTokens) {
    Tokenizer t = train_on(prose(), 400);
    Dice dice{2};
    for (int round = 0; round < 300; round++) {
        std::string text;
        for (int i = 0; i < 12; i++) {
            auto& name = conversation_specials()[dice(16)];
            uint32_t what = dice(4);
            text += what == 0 ? name : what == 1 ? name.substr(dice(4)) : what == 2 ? "the " : "<|";
        }
        auto ids = t.encode(text);
        for (int id : ids) ASSERT_FALSE(t.is_special(id)) << text;
        EXPECT_EQ(t.decode(ids), text);
        EXPECT_EQ(t.decode(t.encode(text, true)), text);
    }
    int bos = t.special("<|bos|>");
    EXPECT_EQ(bos, 400 - 16);
    EXPECT_EQ(t.bos(), bos);
    EXPECT_EQ(t.encode("<|bos|>", true), std::vector<int>{bos});
    EXPECT_EQ(t.encode("", true, true), std::vector<int>{bos});
    EXPECT_EQ(t.decode(std::vector<int>{bos, 0}, true), "!");
    EXPECT_EQ(t.bytes_of(bos), 0);
    EXPECT_EQ(t.find("<|nothing|>"), -1);
    EXPECT_THROW(t.special("<|nothing|>"), Error);
    EXPECT_THROW(t.decode(std::vector<int>{400}), Error);
    EXPECT_THROW(t.decode(std::vector<int>{-1}), Error);
}

TEST(Tokenizer, BytesOfIdsAddUp) {
    Tokenizer t = train_on(prose(), 420);
    std::string text = prose();
    size_t sum = 0;
    for (int id : t.encode(text)) sum += size_t(t.bytes_of(id));
    EXPECT_EQ(sum, text.size());
    EXPECT_LT(t.encode(text).size() * 2, text.size());
}

TEST(Tokenizer, StreamIsAlwaysWellFormed) {
    Tokenizer t = train_on(prose(), 400);
    Dice dice{3};
    for (int round = 0; round < 200; round++) {
        std::vector<int> ids;
        std::string text = "\xF0\x9F\x98\x80 na\xC3\xAFve \xE4\xBD\xA0";
        if (round % 2) ids = t.encode(text);
        for (int i = 0; i < 40; i++) ids.push_back(int(dice(400)));
        StreamDecoder stream(t, false);
        std::string all;
        for (int id : ids) {
            std::string piece = stream.push(id);
            EXPECT_TRUE(valid_utf8(piece));
            all += piece;
        }
        all += stream.finish();
        EXPECT_EQ(all, replace_invalid_utf8(t.decode(ids)));
    }
    StreamDecoder stream(t);
    EXPECT_EQ(stream.push(t.bos()), "");
    auto euro = t.encode("\xE2\x82\xAC");
    ASSERT_EQ(euro.size(), 3u);
    EXPECT_EQ(stream.push(euro[0]), "");
    EXPECT_EQ(stream.push(euro[1]), "");
    EXPECT_EQ(stream.push(euro[2]), "\xE2\x82\xAC");
}

TEST(Tokenizer, ReplacementFollowsUnicodesMaximalSubparts) {
    EXPECT_EQ(replace_invalid_utf8("a\xF0\x80\x80\x41"), "a\uFFFD\uFFFD\uFFFDA");
    EXPECT_EQ(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "\uFFFD\uFFFD\uFFFD\uFFFDA");
    EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD"); // a surrogate
    EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(Tokenizer, BatchesAndThreadsGiveTheSameIds) {
    Tokenizer t = train_on(prose(), 420);
    Dice dice{4};
    std::vector<std::string> texts{"", std::string(300000, 'a'), "<|bos|>x"};
    for (int i = 0; i < 60; i++) {
        std::string text;
        for (uint32_t n = dice(40); n--;)
            text += prose().substr(dice(3000), dice(200)) + (dice(9) ? "" : "<|image|>");
        texts.push_back(text);
    }
    texts.push_back(texts[5] + texts[6]);
    while (texts.back().size() < (1 << 18)) texts.back() += texts.back() + texts[7]; // longer than a block
    std::vector<std::string_view> views(texts.begin(), texts.end());
    for (int n : {1, 2, 3}) {
        set_threads(n);
        auto batch = t.encode_batch(views, true, true);
        for (size_t i = 0; i < texts.size(); i++) {
            EXPECT_EQ(batch[i], t.encode(texts[i], true, true)) << i;
            EXPECT_EQ(t.decode(batch[i], false), "<|bos|>" + texts[i]);
        }
    }
    // a block is cut where nothing changes: piece by piece gives the same as the whole through one block
    std::vector<uint32_t> ends;
    std::string& text = texts.back();
    EXPECT_GT(text.size(), size_t(1 << 17));
    std::vector<int> whole;
    Splitter::named("gpt4-2").split(text, ends);
    size_t begin = 0;
    for (uint32_t end : ends) {
        for (int id : t.encode(std::string_view(text).substr(begin, end - begin))) whole.push_back(id);
        begin = end;
    }
    EXPECT_EQ(t.encode(text), whole);
}

// The definition, one merge at a time.
static std::vector<int> slow_merges(const Tokenizer& t, std::string_view chunk) {
    std::vector<std::string> symbols;
    for (char c : chunk) symbols.push_back(to_letters(std::string(1, c)));
    auto& parts = t.parts();
    for (;;) {
        size_t rank = parts.merges.size(), at = 0;
        for (size_t i = 0; i + 1 < symbols.size(); i++)
            for (size_t r = 0; r < rank; r++)
                if (parts.vocabulary[size_t(parts.merges[r].first)] == symbols[i] &&
                    parts.vocabulary[size_t(parts.merges[r].second)] == symbols[i + 1])
                    rank = r, at = i;
        if (rank == parts.merges.size()) break;
        symbols[at] += symbols[at + 1];
        symbols.erase(symbols.begin() + long(at) + 1);
    }
    std::vector<int> ids;
    for (auto& s : symbols)
        ids.push_back(
            int(std::find(parts.vocabulary.begin(), parts.vocabulary.end(), s) - parts.vocabulary.begin()));
    return ids;
}
TEST(Tokenizer, MergesFollowTheDefinition) {
    Tokenizer t =
        train_on(prose() + std::string(64, 'a') + " " + std::string(37, 'a') + " abababab ababab", 360);
    Dice dice{5};
    for (int round = 0; round < 300; round++) {
        uint32_t n = 1 + dice(round % 3 ? 12 : 90); // short ones, and ones for the heap
        std::string word;
        while (word.size() < n) word += "aabtheornisduag"[dice(round % 2 ? 3 : 15)];
        for (int twice = 0; twice < 2; twice++) EXPECT_EQ(t.encode(word), slow_merges(t, word)) << word;
    }
}

TEST(Tokenizer, OneLongChunkIsNotQuadratic) {
    std::string text(1 << 20, 'a');
    Tokenizer t = train_on(text.substr(0, 4096) + " b", 275);
    auto ids = t.encode(text); // a million neighbours: seconds if it were quadratic would be hours
    EXPECT_EQ(t.decode(ids), text);
    EXPECT_LT(ids.size(), text.size() / 4);
}

TEST(Tokenizer, AddedTokensTakeSpacesAndRespectWords) {
    Tokenizer plain = train_on(prose(), 300);
    TokenizerParts parts = plain.parts();
    auto add = [&](const char* content, bool special, bool lstrip, bool rstrip, bool word) {
        parts.added.push_back({int(parts.vocabulary.size() + parts.added.size() - 16), content, special,
                               lstrip, rstrip, word, false});
        return parts.added.back().id;
    };
    int left = add("<L>", true, true, false, false), right = add("<R>", true, false, true, false);
    int word = add("fox", false, false, false, true), longer = add("<L>>", true, false, false, false);
    Tokenizer t(std::move(parts));
    auto ids = [&](const char* text) { return t.encode(text, true); };
    auto a = t.encode("a"), b = t.encode("b");
    ASSERT_EQ(a.size(), 1u);
    EXPECT_EQ(ids("a \n <L>b"), (std::vector<int>{a[0], left, b[0]}));
    EXPECT_EQ(ids("a<R> \xC2\xA0 b"), (std::vector<int>{a[0], right, b[0]}));
    EXPECT_EQ(ids("a<L>>b"), (std::vector<int>{a[0], longer, b[0]}));
    EXPECT_EQ(ids("<R>  <L>"), (std::vector<int>{right, left}));
    auto has = [&](const char* text) { return std::ranges::count(t.encode(text), word); };
    EXPECT_EQ(has("fox"), 1); // not special: found in ordinary text
    EXPECT_EQ(has("a fox."), 1);
    EXPECT_EQ(has("foxes"), 0);
    EXPECT_EQ(has("outfox"), 0);
    EXPECT_EQ(has("\xC3\xA9"
                  "fox"),
              0);
}

TEST(Tokenizer, HashNamesWhatDecidesIds) {
    Tokenizer a = train_on(prose(), 400), b = train_on(prose(), 400), c = train_on(prose(), 401),
              d = train_on(prose(), 400, "gpt2");
    EXPECT_EQ(a.hash(), b.hash());
    EXPECT_EQ(a.hash().size(), 64u);
    EXPECT_NE(a.hash(), c.hash());
    EXPECT_NE(a.hash(), d.hash());
    TokenizerParts parts = a.parts();
    parts.chat_template = "{{ x }}"; // decides no id
    EXPECT_EQ(Tokenizer(parts).hash(), a.hash());
    std::swap(parts.added[0].content, parts.added[1].content);
    parts.bos = "", parts.prefix = {};
    EXPECT_NE(Tokenizer(parts).hash(), a.hash());
}
