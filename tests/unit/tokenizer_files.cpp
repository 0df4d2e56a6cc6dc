// tokenizer.json and GGUF vocabularies: what is written is read back, and what is wrong is one clear line.
#include <gtest/gtest.h>

#include <fstream>

#include "engine/base/check.h"
#include "engine/io/gguf.h"
#include "tests/unit/files.h"
#include "tokenizer_help.h"

using namespace nvl;
using namespace nvl::test;
using Json = nlohmann::json;

static bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

// A small file by hand: bytes a, b, c, space and what merges make of them.
static Json small() {
    return Json::parse(R"({
      "version": "1.0", "truncation": null, "padding": null,
      "added_tokens": [{"id": 7, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                        "normalized": false, "special": true}],
      "normalizer": null,
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                         {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
                         "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}},
      "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": {"a": 0, "b": 1, "c": 2, "\u0120": 3, "ab": 4, "\u0120ab": 5, "abc": 6},
                "merges": ["a b", ["\u0120", "ab"], "ab c"]}})");
}
static Tokenizer load(const std::string& text) {
    static const std::string path = folder("json") + "/tokenizer.json";
    std::remove(path.c_str()); // a new file, unsynced: thousands of flushes to disk would take their time
    std::ofstream(path, std::ios::binary) << text;
    return Tokenizer::from_hf(path);
}
static Tokenizer load(const Json& json) { return load(json.dump()); }
static std::string error_of(const Json& json) {
    return error_of([&] { load(json); });
}

TEST(TokenizerFiles, SmallFileByHand) {
    Tokenizer t = load(small());
    EXPECT_EQ(t.encode("abc ab cab"), (std::vector<int>{6, 5, 3, 2, 4}));
    EXPECT_EQ(t.encode("abc<s>", true, true), (std::vector<int>{7, 6, 7}));
    EXPECT_EQ(t.decode(t.encode("abc ab cab")), "abc ab cab");
    EXPECT_EQ(t.missing_bytes(), 252);
    EXPECT_EQ(t.encode("axb"), (std::vector<int>{4})); // a byte without a piece is dropped, as elsewhere

    Json j = small();
    j["model"]["unk_token"] = "c";
    EXPECT_EQ(load(j).encode("axb"), (std::vector<int>{0, 2, 1}));
    j = small();
    j["model"]["vocab"]["cab"] = 8;
    EXPECT_EQ(load(j).encode("cab"), (std::vector<int>{2, 4}));
    j["model"]["ignore_merges"] = true;
    EXPECT_EQ(load(j).encode("cab"), (std::vector<int>{8}));
    j["model"]["vocab"]["<s>"] = 7; // not even then is a special token made from text
    j["pre_tokenizer"]["use_regex"] = false;
    EXPECT_TRUE(load(j).encode("<s>").empty());
    j = small();
    j["pre_tokenizer"]["add_prefix_space"] = true;
    EXPECT_EQ(load(j).encode("ab<s>ab", true), (std::vector<int>{5, 7, 5}));
    j = small();
    j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKC"}}}}};
    EXPECT_EQ(load(j).encode("\uFF41\uFF42"), (std::vector<int>{4})); // full-width a and b
    j = small();
    j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"String", "b"}}}, {"behavior", "Isolated"}};
    j["pre_tokenizer"] = {{"type", "Sequence"},
                          {"pretokenizers", {j["pre_tokenizer"], small()["pre_tokenizer"]}}};
    EXPECT_EQ(load(j).encode("ab"), (std::vector<int>{0, 1}));
}

TEST(TokenizerFiles, ConfigNamesTokensAndTemplate) {
    std::string dir = folder("config");
    write_file(dir + "/tokenizer.json", small().dump());
    write_file(dir + "/tokenizer_config.json",
               R"({"bos_token": {"content": "<s>"}, "eos_token": null,
                   "chat_template": [{"name": "tools", "template": "x"}, {"name": "default", "template": "y"}]})");
    write_file(dir + "/special_tokens_map.json", R"({"eos_token": "<s>"})");
    Tokenizer t = load_tokenizer(dir);
    EXPECT_EQ(t.bos(), 7);
    EXPECT_EQ(t.eos(), 7);
    EXPECT_TRUE(t.adds_bos());
    EXPECT_EQ(t.chat_template(), "y");
    write_file(dir + "/chat_template.jinja", "z");
    EXPECT_EQ(load_tokenizer(dir).chat_template(), "z");
    write_file(dir + "/special_tokens_map.json",
               R"({"eos_token": "abc"})"); // a piece that is not listed as added
    t = load_tokenizer(dir);
    EXPECT_EQ(t.eos(), 6);
    EXPECT_EQ(t.encode("abcabc", true), (std::vector<int>{6, 6}));
    EXPECT_TRUE(t.is_special(6));
    write_file(dir + "/tokenizer_config.json", R"({"bos_token": 5})");
    EXPECT_TRUE(
        contains(error_of([&] { load_tokenizer(dir); }), "bos_token: expected a string, found number"));
    write_file(dir + "/tokenizer_config.json", R"({"bos_token": "<zzz>"})");
    EXPECT_TRUE(contains(error_of([&] { load_tokenizer(dir); }), "the bos token '<zzz>'"));
}

TEST(TokenizerFiles, WrittenIsReadBack) {
    for (const char* pattern : {"gpt4-2", "gpt4-1", "gpt4-3", "gpt2", "smollm"}) {
        Tokenizer t = train_on(prose(), 360, pattern);
        t.set_chat_template("{{ messages }}");
        std::string dir = folder(std::string("written-") + pattern);
        t.save(dir);
        Tokenizer again = load_tokenizer(dir);
        EXPECT_EQ(again.hash(), t.hash()) << pattern;
        EXPECT_TRUE(again.parts().splitter == t.parts().splitter);
        EXPECT_EQ(again.chat_template(), t.chat_template());
        EXPECT_EQ(again.bos(), t.bos());
        EXPECT_EQ(again.eos(), t.eos());
        EXPECT_EQ(again.encode(prose() + "<|user_end|>", true, true),
                  t.encode(prose() + "<|user_end|>", true, true));
        again.save(dir + "2");
        for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})
            EXPECT_EQ(read_file(dir + "/" + file), read_file(dir + "2/" + file)) << file;
    }
}

TEST(TokenizerFiles, TruncatedAnywhereIsAnError) {
    std::string text = small().dump();
    for (size_t n = 0; n < text.size(); n++) {
        std::string what = error_of([&] { load(text.substr(0, n)); });
        ASSERT_TRUE(contains(what, "tokenizer.json")) << n << ": " << what;
        ASSERT_FALSE(contains(what, "\n"));
    }
    EXPECT_TRUE(contains(error_of([&] { load(text + "x"); }), "not valid JSON"));
}

// Every value in the file is replaced by values of other kinds: the result is a tokenizer or an Error,
// nothing else.
TEST(TokenizerFiles, AnyValueMayBeWrong) {
    Json whole = small().flatten();
    const Json wrong[] = {nullptr,
                          true,
                          -1,
                          1e300,
                          18446744073709551615ull,
                          16777215,
                          "",
                          "x y z",
                          "\xE4\xBD\xA0",
                          Json::array(),
                          Json::object(),
                          Json::array({1, {{"type", "BPE"}}})};
    int loaded = 0, refused = 0;
    for (auto& [path, value] : whole.items())
        for (Json::json_pointer p(path); !p.empty(); p = p.parent_pointer())
            for (auto& w : wrong) {
                Json j = small();
                j[p] = w;
                try {
                    load(j).encode("abc ab<s>", true, true);
                    loaded++;
                } catch (const Error&) {
                    refused++;
                }
            }
    EXPECT_GT(loaded, 50);
    EXPECT_GT(refused, 500);
}

TEST(TokenizerFiles, MistakesAreNamed) {
    auto with = [](const char* pointer, Json value) {
        Json j = small();
        j[Json::json_pointer(pointer)] = std::move(value);
        return error_of(j);
    };
    EXPECT_TRUE(
        contains(with("/model/type", "Unigram"), "model.type: expected BPE or WordPiece, found 'Unigram'"));
    EXPECT_TRUE(contains(with("/model/byte_fallback", true), "byte fallback"));
    EXPECT_TRUE(contains(with("/model",
                              [] {
                                  Json m = small()["model"];
                                  m["unk_token"] = "a", m["fuse_unk"] = true;
                                  return m;
                              }()),
                         "fuse_unk: not supported"));
    EXPECT_TRUE(contains(with("/model/dropout", 0.1), "dropout"));
    EXPECT_TRUE(contains(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix: not supported"));
    EXPECT_TRUE(contains(with("/model/vocab", Json::object()), "the vocabulary is empty"));
    EXPECT_TRUE(contains(with("/model/vocab/abc", 4), "two pieces have id 4"));
    EXPECT_TRUE(contains(with("/model/vocab/abc", 9999999), "far outside a vocabulary of 7"));
    EXPECT_TRUE(contains(with("/model/vocab/abc", -3), "model.vocab.abc: expected an id"));
    EXPECT_TRUE(contains(with("/model/merges/0", "a z"), "model.merges[0]: 'z' is not in the vocabulary"));
    EXPECT_TRUE(contains(with("/model/merges/0", "b a"), "makes 'ba', which is not in the vocabulary"));
    EXPECT_TRUE(contains(with("/model/merges/0", "ab"), "expected two pieces"));
    EXPECT_TRUE(contains(with("/model/merges/1", Json::array({"a"})), "expected two pieces"));
    EXPECT_TRUE(contains(with("/normalizer", {{"type", "Lowercase"}}),
                         "the normalizer 'Lowercase' is not supported"));
    EXPECT_TRUE(
        contains(with("/pre_tokenizer", {{"type", "Metaspace"}}), "needs the decoder Replace or Metaspace"));
    EXPECT_TRUE(contains(with("/pre_tokenizer", nullptr), "no ByteLevel stage"));
    EXPECT_TRUE(contains(with("/decoder", {{"type", "WordPiece"}}), "has no ByteLevel stage"));
    EXPECT_TRUE(
        contains(with("/post_processor", {{"type", "RobertaProcessing"}}), "'RobertaProcessing' is not"));
    EXPECT_TRUE(contains(with("/post_processor/special_tokens/<s>/ids/0", 70), "names id 70"));
    EXPECT_TRUE(
        contains(with("/added_tokens/0/id", 3), "in the vocabulary but '<s>' among the added tokens"));
    EXPECT_TRUE(contains(with("/added_tokens/0/content", ""), "the added token 7 is empty"));
    Json split = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
    EXPECT_TRUE(contains(with("/pre_tokenizer", split), "cannot compile the split pattern '(a'"));
    split = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Removed"}};
    EXPECT_TRUE(contains(with("/pre_tokenizer", split), "only Isolated is supported, found 'Removed'"));
    EXPECT_TRUE(contains(error_of([&] { load(std::string(100000, '[')); }), "nested deeper than"));
    std::string deep = "{\"model\":";
    for (int i = 0; i < 50000; i++) deep += "{\"model\":";
    EXPECT_TRUE(contains(error_of([&] { load(deep); }), "nested deeper than"));
    EXPECT_TRUE(contains(error_of([] { load_tokenizer("/nonexistent"); }), "no such file or folder"));
    EXPECT_TRUE(
        contains(error_of([] { load_tokenizer(folder("empty")); }), "no tokenizer.json in this folder"));
}

// A merge list that loops back on itself changes nothing: rules make longer pieces only.
TEST(TokenizerFiles, RepeatedMergesEnd) {
    Json j = small();
    for (int i = 0; i < 1000; i++) j["model"]["merges"].push_back(j["model"]["merges"][size_t(i) % 3]);
    EXPECT_EQ(load(j).encode("abc ab"), (std::vector<int>{6, 5}));
}

static Tokenizer from_pieces(const std::string& pre, std::vector<int> types, int bos, bool add_bos,
                             std::vector<std::string> merges = {"a b", "ab c"}) {
    return Tokenizer::from_vocabulary({"a", "b", "c", "ab", "abc", "<s>", "<u>"}, merges, types, pre, bos, -1,
                                      add_bos);
}
TEST(TokenizerFiles, GgufVocabularies) {
    std::vector<int> types{1, 1, 1, 1, 1, 3, 4};
    Tokenizer t = from_pieces("qwen2", types, 5, true);
    EXPECT_EQ(t.encode("abc<s><u>"), (std::vector<int>{4, 6}));
    EXPECT_EQ(t.encode("abc<s><u>", true, true), (std::vector<int>{5, 4, 5, 6}));
    EXPECT_EQ(t.bytes_of(5), 0);
    EXPECT_EQ(t.bytes_of(6), 3);
    std::string unknown = error_of([&] { from_pieces("tekken", types, 5, true); });
    EXPECT_TRUE(contains(unknown, "'tekken' is not supported (known: gpt2, ") && contains(unknown, "smollm"))
        << unknown;
    EXPECT_TRUE(contains(error_of([&] { from_pieces("gpt2", types, 9, true); }), "bos id 9 is outside"));
    EXPECT_TRUE(contains(error_of([&] { from_pieces("gpt2", types, -1, true); }), "names none"));
    EXPECT_TRUE(
        contains(error_of([&] { from_pieces("gpt2", {1}, 5, true); }), "7 tokens, but 1 token types"));
    EXPECT_TRUE(
        contains(error_of([&] { from_pieces("gpt2", types, 5, true, {"a z"}); }), "merge 0 names a piece"));
    EXPECT_TRUE(
        contains(error_of([&] { from_pieces("gpt2", types, 5, true, {"ab"}); }), "merge 0: expected two"));

    std::string dir = folder("gguf");
    t.save(dir);
    EXPECT_EQ(load_tokenizer(dir).hash(), t.hash()); // ids 5 and 6 are at the end
    GgufWriter writer;
    writer.set("tokenizer.ggml.model", std::string("gpt2"));
    writer.set("tokenizer.ggml.pre", std::string("qwen2"));
    writer.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "c", "ab", "abc", "<s>", "<u>"});
    writer.set("tokenizer.ggml.merges", std::vector<std::string>{"a b", "ab c"});
    writer.set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 1, 1, 3, 4});
    writer.set("tokenizer.ggml.bos_token_id", uint32_t(5));
    writer.set("tokenizer.ggml.add_bos_token", true);
    writer.set("tokenizer.chat_template", std::string("T"));
    writer.write(dir + "/v.gguf");
    Tokenizer g = load_tokenizer(dir + "/v.gguf");
    EXPECT_EQ(g.hash(), t.hash());
    EXPECT_TRUE(g.adds_bos());
    EXPECT_EQ(g.chat_template(), "T");
    writer.set("tokenizer.ggml.model", std::string("bert"));
    writer.write(dir + "/v.gguf");
    EXPECT_TRUE(contains(error_of([&] { load_tokenizer(dir + "/v.gguf"); }), "found 'bert'"));
}
