// Vocabularies of SentencePiece's kind and of BERT's.
#include <gtest/gtest.h>

#include "engine/base/check.h"
#include "engine/io/gguf.h"
#include "tests/unit/files.h"
#include "tokenizer_help.h"

using namespace nvl;
using namespace nvl::test;
using Json = nlohmann::json;
using Ids = std::vector<int>;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// <unk> <s>, 256 byte tokens, then pieces with the score minus their place.
struct Pieces {
    std::vector<std::string> tokens{"<unk>", "<s>"};
    std::vector<float> scores{0, 0};
    std::vector<int> types{2, 3};
    explicit Pieces(std::vector<std::string> pieces, bool bytes = true) {
        for (int b = 0; b < 256 && bytes; b++) add(format("<0x%02X>", b), 0, 6);
        for (size_t i = 0; i < pieces.size(); i++) add(pieces[i], -float(i), 1);
    }
    void add(std::string token, float score, int type) {
        tokens.push_back(std::move(token)), scores.push_back(score), types.push_back(type);
    }
    Tokenizer make(bool space = false) const {
        return Tokenizer::from_scores(tokens, scores, types, space, 1, -1, true);
    }
    std::vector<std::string> spelled(const Tokenizer& t, const std::string& text) const {
        std::vector<std::string> out;
        for (int id : t.encode(text)) out.push_back(tokens[size_t(id)]);
        return out;
    }
};
using Spelled = std::vector<std::string>;

TEST(TokenizerPieces, HighestScoreFirstThenLeftmost) {
    Pieces p({"bc", "ab", "cd", "abcd", "a", "b", "c", "d", "▁", "aa", "▁a", "x▁y"});
    Tokenizer t = p.make();
    EXPECT_EQ(p.spelled(t, "abcd"), (Spelled{"a", "bc", "d"})); // bc wins, so that abcd is out of reach
    EXPECT_EQ(p.spelled(t, "aaa"), (Spelled{"aa", "a"}));
    EXPECT_EQ(p.spelled(t, "a ab"), (Spelled{"a", "▁", "ab"})); // ab is better than a space with a
    EXPECT_EQ(p.spelled(t, "a a"), (Spelled{"a", "▁a"}));
    // a character that is no piece falls back to bytes, unless a piece that has it can be made
    EXPECT_EQ(p.spelled(t, "é"), (Spelled{"<0xC3>", "<0xA9>"}));
    EXPECT_EQ(p.spelled(t, "x"), (Spelled{"<0x78>"}));
    Pieces q({"xy", "▁"});
    EXPECT_EQ(q.spelled(q.make(), "xyx y"), (Spelled{"xy", "<0x78>", "▁", "<0x79>"}));
    Pieces r({"xy▁z", "xy", "▁z", "▁", "z"}); // here text may not be cut in front of the space
    EXPECT_EQ(r.spelled(r.make(), "xy zxy z"), (Spelled{"xy▁z", "xy▁z"}));
}

TEST(TokenizerPieces, AnyBytesRoundTrip) {
    Pieces p({"▁t", "he", "▁the", "▁", "t", "h", "e", "é", "▁▁", "▁▁▁▁"});
    Dice dice{11};
    for (bool space : {false, true}) {
        Tokenizer t = p.make(space);
        EXPECT_EQ(t.missing_bytes(), 0);
        for (int i = 0; i < 300; i++) {
            std::string text;
            for (uint32_t n = dice(40); n--;) {
                uint32_t kind = dice(4);
                text += kind == 0   ? std::string(1, char(dice(256)))
                        : kind == 1 ? "é"
                        : kind == 2 ? " "
                                    : "the";
            }
            Ids ids = t.encode(text);
            ASSERT_EQ(t.decode(ids), text);
            StreamDecoder stream(t);
            std::string streamed;
            for (int id : ids) {
                std::string part = stream.push(id);
                ASSERT_TRUE(valid_utf8(part));
                streamed += part;
            }
            streamed += stream.finish();
            if (valid_utf8(text)) ASSERT_EQ(streamed, (space && !text.empty() ? " " : "") + text);
        }
    }
}

// Long texts are cut into tasks: the ids are those of the whole.
TEST(TokenizerPieces, BatchesEqualSingleTexts) {
    Pieces p({"▁t", "he", "▁the", "▁", "t", "h", "e", "e▁t"});
    Tokenizer t = p.make();
    std::string text;
    Dice dice{5};
    while (text.size() < 400000) text += dice(3) ? "the " : dice(2) ? "t" : "h  ";
    std::string_view view = text;
    Ids whole = t.encode_batch(std::span(&view, 1))[0], pieces;
    for (int id : whole) pieces.push_back(id);
    std::string back = t.decode(whole);
    EXPECT_EQ(back, text);
    PieceBpe alone(p.tokens, {}, t.parts().pieces, std::vector<uint8_t>(p.tokens.size(), 1), 0, "test");
    ChunkCache cache;
    Ids expected;
    alone.encode(replaced(text, " ", SPACE_PIECE), expected, cache);
    EXPECT_EQ(whole, expected);
}

TEST(TokenizerPieces, AddedTokensAndTheFrame) {
    Pieces p({"▁a", "▁", "a", "▁▁"});
    p.add("<u>", -1000, 4);
    Tokenizer t = p.make(true);
    EXPECT_EQ(p.spelled(t, "a<u>a"), (Spelled{"▁a", "<u>", "▁a"}));
    EXPECT_EQ(t.encode("<s>a", true), (Ids{1, 258}));
    EXPECT_EQ(t.encode("a", false, true), (Ids{1, 258}));
    EXPECT_NE(t.encode("<s>a")[0], 1);
    EXPECT_EQ(t.decode(t.encode("<s>a", true)), "<s> a");
    EXPECT_EQ(t.decode(t.encode("<s>a", true), true), "a");
    EXPECT_EQ(t.find("<u>"), 262);
}

TEST(TokenizerPieces, WrittenIsReadBack) {
    for (bool space : {false, true}) {
        Pieces p({"▁t", "he", "▁the", "▁", "t", "h", "e", "▁▁"});
        p.add("<u>", -1000, 4);
        Tokenizer t = p.make(space);
        std::string dir = folder("pieces");
        t.save(dir);
        Tokenizer again = load_tokenizer(dir);
        for (const char* text : {"the  the<u> é <s>", "", " ", "thethe t h e"}) {
            EXPECT_EQ(again.encode(text, true, true), t.encode(text, true, true)) << text;
            EXPECT_EQ(again.decode(again.encode(text)), t.decode(t.encode(text)));
        }
        again.save(dir + "2");
        EXPECT_EQ(load_tokenizer(dir + "2").hash(), again.hash());
    }
}

// As Llama 2's and Mistral's files have it, without a byte of the real vocabularies.
Json small() {
    return Json::parse(R"({
      "added_tokens": [{"id": 1, "content": "<s>", "special": true, "normalized": false}],
      "normalizer": null,
      "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
      "post_processor": null,
      "decoder": {"type": "Sequence", "decoders": [
         {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
         {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
      "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
                "vocab": {"<unk>": 0, "<s>": 1, "<0xC3>": 2, "<0xA9>": 3, "▁": 4, "a": 5, "▁a": 6, "▁▁": 7},
                "merges": ["▁ a", "▁ ▁"]}})");
}
Tokenizer load(const Json& json) {
    std::string path = folder("json") + "/tokenizer.json";
    write_file(path, json.dump());
    return Tokenizer::from_hf(path);
}

TEST(TokenizerPieces, MetaspaceFiles) {
    Json j = small();
    EXPECT_EQ(load(j).encode("a<s>a", true), (Ids{6, 1, 5}));
    EXPECT_EQ(load(j).encode(" a"), (Ids{6}));                // has its space already
    EXPECT_EQ(load(j).encode("aé€€a"), (Ids{6, 2, 3, 0, 5})); // no bytes for the euro: unknown, fused
    EXPECT_EQ(load(j).encode("a   a"), (Ids{6, 7, 6}));       // the earlier merge first
    j["model"]["fuse_unk"] = false;
    EXPECT_EQ(load(j).encode("a€€"), (Ids{6, 0, 0}));
    j["pre_tokenizer"]["prepend_scheme"] = "always";
    EXPECT_EQ(load(j).encode("a<s>a", true), (Ids{6, 1, 6}));
    j["pre_tokenizer"]["prepend_scheme"] = "never";
    EXPECT_EQ(load(j).encode("a  "), (Ids{5, 7}));
    j["pre_tokenizer"]["split"] = true;
    EXPECT_EQ(load(j).encode("a  "), (Ids{5, 4, 4}));
    j = small();
    j["pre_tokenizer"] = nullptr;
    j["normalizer"] = {{"type", "Sequence"},
                       {"normalizers",
                        {{{"type", "Prepend"}, {"prepend", "▁"}},
                         {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
    EXPECT_EQ(load(j).encode(" a<s>a", true), (Ids{4, 6, 1, 6}));
    EXPECT_EQ(load(j).decode(Ids{4, 6}), " a");
}

TEST(TokenizerPieces, MistakesAreNamed) {
    auto with = [](const char* pointer, Json value) {
        Json j = small();
        j[Json::json_pointer(pointer)] = std::move(value);
        return error_of([&] { load(j); });
    };
    EXPECT_TRUE(
        contains(with("/decoder", {{"type", "ByteLevel"}}), "needs the decoder Replace or Metaspace"));
    EXPECT_TRUE(contains(with("/pre_tokenizer/prepend_scheme", "often"), "found 'often'"));
    EXPECT_TRUE(contains(with("/pre_tokenizer/replacement", "_"), "expected U+2581"));
    EXPECT_TRUE(contains(with("/model/unk_token", "<what>"), "'<what>' is not in the vocabulary"));
    EXPECT_TRUE(contains(with("/model/byte_fallback", false), "must come together"));
    EXPECT_TRUE(contains(with("/normalizer", {{"type", "Precompiled"}}), "'Precompiled' is not supported"));
    Pieces p({"a", "b"});
    p.scores.pop_back();
    EXPECT_TRUE(contains(error_of([&] { p.make(); }), "260 tokens, but 259 scores"));
    p = Pieces({"a", "a"});
    EXPECT_TRUE(contains(error_of([&] { p.make(); }), "the piece 'a' has two ids, 258 and 259"));
    p = Pieces({"a"});
    p.types.back() = 6;
    EXPECT_TRUE(contains(error_of([&] { p.make(); }), "the byte token 258 is 'a'"));
    p = Pieces({"a"});
    p.scores.back() = NAN;
    EXPECT_TRUE(contains(error_of([&] { p.make(); }), "is not a number"));
}

TEST(TokenizerPieces, ScoresFromGguf) {
    Pieces p({"▁a", "▁", "a"});
    GgufWriter writer;
    writer.set("tokenizer.ggml.model", std::string("llama"));
    writer.set("tokenizer.ggml.tokens", p.tokens);
    writer.set("tokenizer.ggml.token_type", std::vector<int32_t>(p.types.begin(), p.types.end()));
    writer.set("tokenizer.ggml.bos_token_id", uint32_t(1));
    std::string path = folder("scores") + "/v.gguf";
    writer.write(path);
    EXPECT_TRUE(contains(error_of([&] { load_tokenizer(path); }), "tokenizer.ggml.scores"));
    writer.set("tokenizer.ggml.scores", p.scores);
    writer.write(path);
    Tokenizer t = load_tokenizer(path);
    EXPECT_EQ(t.hash(), p.make(true).hash());
    EXPECT_EQ(t.encode("a a", false, true), (Ids{1, 258, 258}));
}

// [PAD] [UNK] [CLS] [SEP] [MASK], then pieces.
std::string bert_folder(const std::string& name, const std::string& config = "") {
    std::string dir = folder(name);
    write_file(dir + "/vocab.txt",
               "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncafe\n##s\n.\n你\nun\n##aff\n##able\n!\nCafe\n");
    if (!config.empty()) write_file(dir + "/tokenizer_config.json", config);
    return dir;
}
TEST(TokenizerWordPiece, LongestPiecesOfNormalisedWords) {
    Tokenizer t = load_tokenizer(bert_folder("bert"));
    EXPECT_EQ(t.encode("Cafés. unaffable", false, true), (Ids{2, 5, 6, 7, 9, 10, 11, 3}));
    EXPECT_EQ(t.encode("cafe!!\tcafe\x01s"), (Ids{5, 12, 12, 5, 6})); // control characters vanish
    EXPECT_EQ(t.encode("你你"), (Ids{8, 8}));
    EXPECT_EQ(t.encode("unx cafe"), (Ids{1, 5})); // a word that cannot be spelled is one unknown
    EXPECT_EQ(t.encode(std::string(101, 's') + " cafe"), (Ids{1, 5}));
    EXPECT_EQ(t.encode("[MASK]", true), (Ids{4}));
    EXPECT_EQ(t.encode("[MASK]"), (Ids{1, 1, 1}));
    EXPECT_EQ(t.encode("\xFF\xC3"), Ids{}); // ill-formed bytes are cleaned away
    EXPECT_EQ(t.decode(t.encode("CAFES. unaffable")), "cafes. unaffable");
    EXPECT_EQ(t.decode(t.encode("cafe", false, true)), "[CLS] cafe [SEP]");
    EXPECT_EQ(t.decode(t.encode("cafe", false, true), true), "cafe");
    Tokenizer cased = load_tokenizer(bert_folder("cased", R"({"do_lower_case": false})"));
    EXPECT_EQ(cased.encode("Cafe cafe Cafés"), (Ids{13, 5, 1}));
    EXPECT_NE(cased.hash(), t.hash());
}
TEST(TokenizerWordPiece, WrittenIsReadBack) {
    Tokenizer t = load_tokenizer(bert_folder("bert"));
    std::string dir = folder("written");
    t.save(dir);
    Tokenizer again = load_tokenizer(dir);
    EXPECT_EQ(again.hash(), t.hash());
    EXPECT_EQ(again.encode("Cafés. [MASK] unaffable", true, true),
              t.encode("Cafés. [MASK] unaffable", true, true));
    Json j = Json::parse(read_file(dir + "/tokenizer.json"));
    auto with = [&](const char* pointer, Json value) {
        Json k = j;
        k[Json::json_pointer(pointer)] = std::move(value);
        return error_of([&] { load(k); });
    };
    EXPECT_TRUE(contains(with("/model/unk_token", nullptr), "needs an unknown token"));
    EXPECT_TRUE(contains(with("/pre_tokenizer", nullptr), "WordPiece is supported with BertPreTokenizer"));
    EXPECT_TRUE(contains(with("/normalizer", {{"type", "Lowercase"}}), "'Lowercase' is not supported"));
    j["post_processor"] = {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}};
    EXPECT_EQ(load(j).encode("cafe", false, true), (Ids{2, 5, 3}));
    write_file(folder("bad") + "/vocab.txt", "[PAD]\n[UNK]\n[UNK]\n");
    EXPECT_TRUE(contains(error_of([] { load_tokenizer(folder("bad")); }), "'[UNK]' stands twice"));
    write_file(folder("bad") + "/vocab.txt", "a\nb\n");
    EXPECT_TRUE(contains(error_of([] { load_tokenizer(folder("bad")); }), "no piece [CLS]"));
}

} // namespace
