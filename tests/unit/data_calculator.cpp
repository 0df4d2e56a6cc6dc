// The calculator: values, refusals, and random expressions against an oracle of 128-bit integers.
#include <gtest/gtest.h>

#include <string>

#include "data/chat/calculator.h"
#include "engine/base/rng.h"

using namespace nvl;

TEST(Calculator, Values) {
    auto is = [](const char* e) { return calculate(e).value_or("none"); };
    EXPECT_EQ(is("1+2*3"), "7");
    EXPECT_EQ(is("(1+2)*3"), "9");
    EXPECT_EQ(is("10/2"), "5");
    EXPECT_EQ(is("7/2"), "3.5");
    EXPECT_EQ(is("1/3"), "0.333333333333");
    EXPECT_EQ(is("0.1+0.2"), "0.3");
    EXPECT_EQ(is("1,234,567 + 1"), "1234568");
    EXPECT_EQ(is("2--3"), "5");
    EXPECT_EQ(is("-(2+3)*-2"), "10");
    EXPECT_EQ(is("8/4/2"), "1");
    EXPECT_EQ(is("8-4-2"), "2");
    EXPECT_EQ(is("-2/4"), "-0.5");
    EXPECT_EQ(is(".5*4"), "2");
    EXPECT_EQ(is("-0.0"), "0");
    EXPECT_EQ(is("9223372036854775807"), "9223372036854775807");
    EXPECT_EQ(is("-9223372036854775807-1"), "-9223372036854775808");
    EXPECT_EQ(is("'strawberry'.count('r')"), "3");
    EXPECT_EQ(is("(\"strawberry\").count(\"r\") + 1"), "4");
    EXPECT_EQ(is("((\"ab\").count(\"a\")+1)*2"), "4");
    EXPECT_EQ(is("((('ab'))).count('b')"), "1");
    EXPECT_EQ(is("'aaaa'.count('aa')"), "2"); // without overlap, as in Python
    EXPECT_EQ(is("len('apple')*2"), "10");
    EXPECT_EQ(is("len('\xc3\xbc')"), "1");
}

TEST(Calculator, RefusesEverythingElse) {
    for (const char* e : {"",
                          " ",
                          "1+",
                          "*1",
                          "1 2",
                          "(1",
                          "1)",
                          "()",
                          "1/0",
                          "1/(2-2)",
                          "1/0.0",
                          "2**3",
                          "7//2",
                          "1..2",
                          ".",
                          "1,",
                          ",1",
                          "1,,2",
                          "1e5",
                          "0x10",
                          "abc",
                          "9223372036854775808",
                          "9223372036854775807+1",
                          "-9223372036854775807-2",
                          "4294967296*4294967296",
                          "(-9223372036854775807-1)/-1",
                          "(-9223372036854775807-1)*-1",
                          "'a'",
                          "'a'.count()",
                          "'a'.count('')",
                          "'a'.count('b'",
                          "'a.count('b')",
                          "'a'.upper()",
                          "'a' 'b'",
                          "'a\\'.count('b')",
                          "__import__('os')",
                          "len()",
                          "len(5)",
                          "('a'.count('a')",
                          "('a').count",
                          "1;2",
                          "1\n+2",
                          "\0"})
        EXPECT_FALSE(calculate(e)) << e;
    EXPECT_TRUE(calculate(std::string(255, '-').replace(60, 195, "1")));
    EXPECT_FALSE(calculate(std::string(100, '-') + "1"));                         // too deep
    EXPECT_FALSE(calculate(std::string(100, '(') + "1" + std::string(100, ')'))); // too deep
    EXPECT_TRUE(calculate(std::string(60, '(') + "1" + std::string(60, ')')));
    EXPECT_FALSE(calculate("1" + std::string(256, ' '))); // too long
    EXPECT_FALSE(calculate(std::string(1 << 20, '(')));
    EXPECT_FALSE(calculate(std::string(250, '9') + "." + std::string(5, '9') + "*1")); // 257 characters
    std::string big = std::string(120, '9') + ".0*" + std::string(120, '9') + ".0";
    EXPECT_TRUE(calculate(big));                    // 1e240: finite
    EXPECT_FALSE(calculate(std::string(200, '9'))); // more than 64 bits
}

// Random expressions, built beside their value: exact 128-bit integers, the oracle of what must overflow.
TEST(Calculator, AgreesWithAnOracle) {
    struct Built {
        std::string text;
        std::optional<__int128> value;
        int level; // 1 sum, 2 product, 3 primary
    };
    Random random(1, "expressions");
    uint64_t k = 0;
    auto fits = [](__int128 v) { return v >= INT64_MIN && v <= INT64_MAX; };
    std::function<Built(int)> build = [&](int depth) -> Built {
        uint64_t kind = depth ? random.below(k++, 5) : 0;
        if (kind == 0) {
            auto v = int64_t(random.bits(k) >> (1 + random.below(k + 1, 63)));
            k += 2;
            return {std::to_string(v), v, 3};
        }
        if (kind == 4) {
            Built a = build(depth - 1);
            std::string inner = a.level < 3 ? "(" + a.text + ")" : a.text;
            if (a.value) a.value = -*a.value;
            if (a.value && !fits(*a.value)) a.value.reset();
            return {"-" + inner, a.value, 1};
        }
        Built a = build(depth - 1), b = build(depth - 1);
        int level = kind == 3 ? 2 : 1;
        if (a.level < level) a.text = "(" + a.text + ")";
        if (b.level <= level) b.text = "( " + b.text + ")";
        Built r{a.text + (kind == 1 ? "+" : kind == 2 ? " - " : "* ") + b.text, {}, level};
        if (a.value && b.value) {
            __int128 v = kind == 1   ? *a.value + *b.value
                         : kind == 2 ? *a.value - *b.value
                                     : *a.value * *b.value; // below 2^126
            if (fits(v)) r.value = v;
        }
        return r;
    };
    int valued = 0, overflowed = 0;
    for (int i = 0; i < 20000; i++) {
        Built b = build(1 + i % 4);
        if (b.text.size() > 256) continue;
        auto got = calculate(b.text);
        ASSERT_EQ(got.has_value(), b.value.has_value()) << b.text;
        if (b.value) {
            ASSERT_EQ(*got, std::to_string(int64_t(*b.value))) << b.text;
        }
        (b.value ? valued : overflowed)++;
    }
    EXPECT_GT(valued, 5000);
    EXPECT_GT(overflowed, 500);
    // quotients against double
    for (int i = 0; i < 2000; i++) {
        double a = double(random.below(k++, 100000)) / 8, b = double(1 + random.below(k++, 1000)) / 4;
        char text[64];
        std::snprintf(text, sizeof text, "%.6f/%.6f", a, b);
        ASSERT_NEAR(std::stod(*calculate(text)), a / b, 1e-11 * (a / b) + 1e-300) << text;
    }
    // garbage never crashes, and what is accepted is a number
    const char alphabet[] = "0123456789+-*/() .,'\"abclen.count";
    for (int i = 0; i < 50000; i++) {
        std::string s;
        for (uint64_t n = random.below(k++, 24); n; n--)
            s += alphabet[random.below(k++, sizeof alphabet - 1)];
        if (auto v = calculate(s)) {
            EXPECT_NO_THROW((void)std::stod(*v)) << s;
        }
    }
}
