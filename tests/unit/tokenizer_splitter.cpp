// The hand-written scanners against PCRE2 running the patterns themselves.
#include <gtest/gtest.h>

#include "engine/base/check.h"
#include "tokenizer_help.h"

using namespace nvl;
using namespace nvl::test;

static const char* GPT2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
static const char* NANOCHAT =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
static const char* LLAMA3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)"
    R"(|\s+(?!\S)|\s+)";
static const char* QWEN2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Case {
    const char* name;
    std::vector<const char*> patterns;
};
static const Case CASES[] = {{"gpt2", {GPT2}},
                             {"gpt4-2", {NANOCHAT}},
                             {"gpt4-3", {LLAMA3}},
                             {"gpt4-1", {QWEN2}},
                             {"smollm", {"\\p{N}", GPT2}}};

static std::vector<uint32_t> ends_of(const Splitter& s, std::string_view text) {
    std::vector<uint32_t> ends;
    s.split(text, ends);
    return ends;
}

// Code points on which PCRE2's Unicode tables and utf8proc's (another version of Unicode) agree.
static std::vector<uint32_t> common_code_points() {
    Regex letter("\\p{L}"), number("\\p{N}"), white("\\s"), unassigned("\\p{Cn}");
    std::vector<uint32_t> common;
    int newer = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c < 0xE000) continue;
        std::string text;
        append_utf8(text, c);
        size_t a, b;
        CharClass k = class_table()[c];
        bool is_white = k == CharClass::space || k == CharClass::newline;
        if (letter.find(text, 0, a, b) == (k == CharClass::letter) &&
            number.find(text, 0, a, b) == (k == CharClass::number) && white.find(text, 0, a, b) == is_white)
            common.push_back(c);
        else
            EXPECT_TRUE(unassigned.find(text, 0, a, b) || k == CharClass::other) << std::hex << c, newer++;
    }
    EXPECT_LT(newer, 20000); // CJK extensions come in thousands
    return common;
}

TEST(Splitter, EqualsTheRegularExpressions) {
    auto common = common_code_points();
    std::vector<std::string> words = {"'s",      "'S",
                                      "'ll",     "'Ve",
                                      "'re",     "'d",
                                      "'m",      "'\u017F",
                                      "'",       "''",
                                      " ",       "  ",
                                      "\n",      "\r\n",
                                      "\t",      "\u00A0",
                                      "\u0085",  "\u2003",
                                      "\u180E",  "1",
                                      "12",      "\u0663",
                                      "\u2167",  "a",
                                      "Zq",      "\u00E9",
                                      "e\u0301", "\u4F60",
                                      ".",       "!?",
                                      "_",       "\U0001F600",
                                      "\x1C",    std::string(1, '\0'),
                                      "\u200B",  " x",
                                      "\n\n",    " \n "};
    Dice dice{6};
    for (auto& c : CASES) {
        Splitter fast = Splitter::named(c.name), slow;
        for (auto* p : c.patterns) slow.add_regex(p);
        for (int round = 0; round < 6000; round++) {
            std::string text;
            for (uint32_t n = dice(14); n--;) {
                if (dice(6))
                    text += words[dice(uint32_t(words.size()))];
                else
                    append_utf8(text, common[dice(uint32_t(common.size()))]);
            }
            ASSERT_EQ(ends_of(fast, text), ends_of(slow, text)) << c.name << ": '" << text << "'";
        }
    }
}

TEST(Splitter, KnownPatternsAreRecognised) {
    for (auto& c : CASES) {
        Splitter s, with_classes;
        for (auto* p : c.patterns) s.add_pattern(p);
        EXPECT_TRUE(s == Splitter::named(c.name)) << c.name;
        for (auto& stage : s.stages()) with_classes.add_pattern(Splitter::pattern_of(stage));
        EXPECT_TRUE(s == with_classes) << c.name;
    }
    EXPECT_THROW(Splitter::named("gpt5"), Error);
}

TEST(Splitter, TextMayBeCutWhereItSays) {
    Dice dice{7};
    for (auto& c : CASES) {
        Splitter s = Splitter::named(c.name);
        for (int round = 0; round < 3000; round++) {
            std::string text;
            for (uint32_t n = 3 + dice(20); n--;) text += "aZ  \n\n\t'1.s\xC3\xA9"[dice(13)];
            size_t cut = s.safe_cut(text, dice(uint32_t(text.size())));
            auto whole = ends_of(s, text), left = ends_of(s, std::string_view(text).substr(0, cut));
            for (uint32_t e : ends_of(s, std::string_view(text).substr(cut)))
                left.push_back(uint32_t(cut) + e);
            ASSERT_EQ(whole, left) << c.name << ": '" << text << "' at " << cut;
        }
    }
    Splitter generic, none;
    generic.add_regex("a b");
    EXPECT_EQ(generic.safe_cut("a b a b", 1), 7u);
    EXPECT_EQ(none.safe_cut("a b a b", 1), 7u);
}

TEST(Splitter, IllFormedBytesAreCharactersOfTheirOwn) {
    EXPECT_EQ(ends_of(Splitter::named("gpt4-2"), "ab\xFF\xFE cd\xC3"), (std::vector<uint32_t>{2, 4, 7, 8}));
    Splitter regex;
    regex.add_regex("b+");
    EXPECT_EQ(ends_of(regex, "\xFF"
                             "bb\xC3"
                             "b"),
              (std::vector<uint32_t>{1, 3, 4, 5}));
}

TEST(Splitter, BadAndEndlessPatternsAreErrors) {
    EXPECT_THROW(Regex("("), Error);
    EXPECT_THROW(Regex(std::string(5000, '(') + std::string(5000, ')')), Error);
    EXPECT_THROW(Regex("\\C"), Error);
    Splitter s;
    s.add_regex("(a+)+$|b");
    std::vector<uint32_t> ends;
    EXPECT_THROW(s.split(std::string(40, 'a') + "c", ends), Error);
    Splitter empty_matches;
    empty_matches.add_regex("x*");
    EXPECT_EQ(ends_of(empty_matches, "axb\u00E9"), (std::vector<uint32_t>{1, 2, 5}));
}
