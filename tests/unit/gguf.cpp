// engine/io: GGUF out and in, and everything a damaged file can hold.
#include "engine/io/gguf.h"

#include <gtest/gtest.h>

#include "engine/base/rng.h"
#include "tests/unit/files.h"

using namespace nvl;

/// The error of opening a file in memory and reading all of it; a heap copy without a byte to spare.
static std::string parse_error(const std::string& file) {
    std::vector<char> exact(file.begin(), file.end());
    return error_of([&] {
        Gguf g({reinterpret_cast<const std::byte*>(exact.data()), exact.size()}, "f");
        size_t sum = 0;
        for (auto& key : g.keys()) {
            sum += g.text(key).size();
            error_of([&] { sum += g.strings(key).size(); });
            error_of([&] { sum += g.integers(key).size(); });
            error_of([&] { sum += g.numbers(key).size(); });
        }
        for (auto& t : g.tensors()) {
            check(int64_t(t.bytes.size()) == block_bytes(t.type, t.shape.numel()),
                  "bytes are not the shape's");
            for (std::byte b : t.bytes) sum += size_t(b);
        }
        check(sum != SIZE_MAX, "never");
    });
}
static std::string text(const std::string& s) { return raw(uint64_t(s.size())) + s; }
static std::string key(const std::string& name, uint32_t type, const std::string& value) {
    return text(name) + raw(type) + value;
}
static std::string tensor(const std::string& name, std::vector<uint64_t> ne, uint32_t type, uint64_t offset) {
    std::string s = text(name) + raw(uint32_t(ne.size()));
    for (uint64_t n : ne) s += raw(n);
    return s + raw(type) + raw(offset);
}
static std::string file_of(std::vector<std::string> keys, std::vector<std::string> tensors, size_t data = 0) {
    std::string s = "GGUF" + raw(uint32_t(3)) + raw(uint64_t(tensors.size())) + raw(uint64_t(keys.size()));
    for (auto& k : keys) s += k;
    for (auto& t : tensors) s += t;
    s.resize((s.size() + 31) / 32 * 32);
    return s + std::string(data, '\1');
}

struct Sample {
    std::vector<float> f = std::vector<float>(12, 2.5f);
    std::string q = std::string(size_t(block_bytes(BlockType::q8_0, 96)), 'q');
    GgufWriter writer;
    Sample() {
        writer.set("general.architecture", std::string("llama"));
        writer.set("u32", uint32_t(7));
        writer.set("i32", int32_t(-7));
        writer.set("i64", int64_t(-1) << 40);
        writer.set("u64", uint64_t(1) << 40);
        writer.set("f32", 0.5f);
        writer.set("f64", 0.1);
        writer.set("yes", true);
        writer.set("tokens", std::vector<std::string>{"a", "", "\xff\n", "long enough"});
        writer.set("types", std::vector<int32_t>{1, -2, 3});
        writer.set("scores", std::vector<float>{-1.5f, 0});
        writer.set("flags", std::vector<bool>{true, false});
        writer.add("w", BlockType::f32, {3, 4}, {reinterpret_cast<const std::byte*>(f.data()), 48});
        writer.add("q", BlockType::q8_0, {3, 32}, bytes_of(q));
    }
};

TEST(Gguf, RoundTrip) {
    TemporaryFolder dir;
    Sample s;
    for (uint32_t alignment : {32u, 64u}) {
        s.writer.write(dir / "a.gguf", alignment);
        Gguf g(dir / "a.gguf");
        EXPECT_EQ(g.version(), 3);
        EXPECT_EQ(g.alignment(), int64_t(alignment));
        EXPECT_EQ(g.string("general.architecture"), "llama");
        EXPECT_EQ(g.integer("u32"), 7);
        EXPECT_EQ(g.integer("i32"), -7);
        EXPECT_EQ(g.integer("i64"), int64_t(-1) << 40);
        EXPECT_EQ(g.integer("u64"), int64_t(1) << 40);
        EXPECT_EQ(g.number("f32"), 0.5);
        EXPECT_EQ(g.number("f64"), 0.1);
        EXPECT_EQ(g.number("i32"), -7.0);
        EXPECT_TRUE(g.boolean("yes"));
        EXPECT_EQ(g.strings("tokens"), (std::vector<std::string>{"a", "", "\xff\n", "long enough"}));
        EXPECT_EQ(g.integers("types"), (std::vector<int64_t>{1, -2, 3}));
        EXPECT_EQ(g.integers("flags"), (std::vector<int64_t>{1, 0}));
        EXPECT_EQ(g.numbers("scores"), (std::vector<double>{-1.5, 0}));
        EXPECT_EQ(g.find_integer("nothing"), std::nullopt);
        EXPECT_EQ(g.find_integer("u32"), 7);
        EXPECT_TRUE(g.is_array("types"));
        EXPECT_EQ(g.text("tokens"), "4 x string");
        ASSERT_EQ(g.tensors().size(), 2u);
        EXPECT_EQ(g.at("w").shape, (Shape{3, 4}));
        EXPECT_EQ(std::memcmp(g.at("w").bytes.data(), s.f.data(), 48), 0);
        EXPECT_EQ(g.at("q").type, BlockType::q8_0);
        EXPECT_EQ(std::memcmp(g.at("q").bytes.data(), s.q.data(), s.q.size()), 0);
        auto why = [&](auto f) { return error_of([&] { f(); }); };
        EXPECT_NE(why([&] { g.integer("f32"); }).find("\"f32\" is f32; expected an integer"),
                  std::string::npos);
        EXPECT_NE(why([&] { g.find_string("types"); }).find("is an array of i32; expected a string"),
                  std::string::npos);
        EXPECT_NE(why([&] { g.integer("u3"); }).find("is missing"), std::string::npos);
        EXPECT_NE(why([&] { g.at("qq"); }).find("did you mean \"q\""), std::string::npos);
    }
}

TEST(Gguf, EveryTruncationIsRefusedAndNoMutationCrashes) {
    TemporaryFolder dir;
    Sample s;
    s.writer.write(dir / "a.gguf");
    std::string file = read_file(dir / "a.gguf");
    ASSERT_EQ(parse_error(file), "");
    size_t content = file.size() - 26; // the padding behind the last tensor may go
    for (size_t i = 0; i < content; i++) EXPECT_NE(parse_error(file.substr(0, i)), "") << i;
    EXPECT_EQ(parse_error(file.substr(0, content)), "");
    size_t header = file.size() - 64 - 128;
    for (size_t i = 0; i < header; i++) {
        for (int v : {0, 1, 2, 8, 9, 12, 13, 0x7f, 0x80, 0xff}) {
            std::string other = file;
            other[i] = char(v);
            parse_error(other); // any Error is fine; another exception or a bad access is not
        }
        for (uint64_t v : {uint64_t(0), uint64_t(1) << 31, uint64_t(1) << 32, uint64_t(1) << 61,
                           uint64_t(1) << 63, ~uint64_t(0), ~uint64_t(31)}) {
            std::string other = file;
            std::memcpy(other.data() + i, &v, std::min<size_t>(8, other.size() - i));
            parse_error(other);
        }
    }
    for (uint64_t round = 0; round < 3000; round++) { // several bytes at once
        std::string other = file;
        Random r(round, "mutate");
        for (uint64_t k = 0; k < 4; k++) other[r.below(2 * k, header)] = char(r.below(2 * k + 1, 256));
        parse_error(other);
    }
}

TEST(Gguf, RefusesWhatIsWrong) {
    struct Wrong {
        std::string file, words;
    };
    auto number = key("a", 4, raw(1u));
    auto one = [](std::string k) { return file_of({k}, {}); };
    auto only = [](std::string t) { return file_of({}, {t}, 256); };
    auto header = [](uint32_t version, uint64_t tensors, uint64_t values) {
        return "GGUF" + raw(version) + raw(tensors) + raw(values) + std::string(64, '\0');
    };
    auto alignment = [&](uint32_t n) { return one(key("general.alignment", 4, raw(n))); };
    ASSERT_EQ(parse_error(one(number)), "");
    ASSERT_EQ(parse_error(only(tensor("x", {8, 2}, 0, 0))), "");
    ASSERT_EQ(parse_error(header(3, 0, 0)), "");
    ASSERT_EQ(parse_error(header(2, 0, 0)), "");
    std::vector<Wrong> all = {
        {"", "is the file cut off"},
        {"GGML" + std::string(40, '\0'), "not a GGUF file: found \"GGML\""},
        {header(0, 0, 0), "version 0"},
        {header(1, 0, 0), "version 1; expected 2 or 3"},
        {header(4, 0, 0), "version 4"},
        {header(0x03000000, 0, 0), "big-endian"},
        {header(3, 1000, 0), "1000 tensors do not fit"},
        {header(3, ~uint64_t(0), 0), "tensors do not fit"},
        {header(3, 0, uint64_t(1) << 60), "entries do not fit"},
        {one(key("", 4, raw(1u)) + "  "), "empty name"},
        {one(key(std::string("a\0b", 3), 4, raw(1u))), "not UTF-8 text"},
        {one(key("\xc0\x80", 4, raw(1u))), "not UTF-8 text"},
        {one(key(std::string(70000, 'k'), 4, raw(1u))), ""},
        {one(key(std::string(70000, 'k'), 4, raw(1u)) + std::string(70000, 'x')), "a string of 70000 bytes"},
        {file_of({number, number}, {}), "\"a\": the key appears twice"},
        {one(key("a", 13, raw(1u))), "unknown value type 13"},
        {one(key("a", 0xffffffff, raw(1u))), "unknown value type"},
        {one(key("a", 7, "\2")), "a bool of value 2"},
        {one(key("a", 9, raw(7u) + raw(uint64_t(2)) + "\1\2")), "a bool of value 2"},
        {one(key("a", 8, raw(uint64_t(1) << 63))), "are left"},
        {one(key("a", 8, raw(~uint64_t(0)))), "are left"},
        {one(key("a", 9, raw(9u) + raw(uint64_t(1)))), "array of arrays"},
        {one(key("a", 9, raw(99u) + raw(uint64_t(1)))), "unknown element type 99"},
        {one(key("a", 9, raw(4u) + raw(uint64_t(1) << 62))), "does not fit"},
        {one(key("a", 9, raw(8u) + raw(uint64_t(1) << 61))), "does not fit"},
        {alignment(0), "alignment of 0"},
        {alignment(3), "alignment of 3"},
        {alignment(1u << 31), "alignment of 2147483648"},
        {one(key("general.alignment", 8, text("32"))), "is string; expected an integer"},
        {one(key("split.count", 2, raw(uint16_t(3)))), "one of 3 parts"},
        {only(tensor("x", {}, 0, 0)), "0 dimensions"},
        {only(tensor("x", {1, 1, 1, 1, 1}, 0, 0)), "5 dimensions"},
        {only(tensor("x", {0}, 0, 0)), "dimension 0 is 0"},
        {only(tensor("x", {4, ~uint64_t(0)}, 0, 0)), "dimension 1 is -1"},
        {only(tensor("x", {uint64_t(1) << 32, uint64_t(1) << 32}, 0, 0)), "overflows"},
        {only(tensor("x", {uint64_t(1) << 60}, 0, 0)), "reach past the end"},
        {only(tensor("x", {uint64_t(1) << 62, 1}, 28, 0)), "size in bytes overflows"},
        {only(tensor("x", {33}, 8, 0)), "not a multiple of Q8_0's blocks of 32"},
        {only(tensor("x", {128}, 12, 0)), "not a multiple of Q4_K's blocks of 256"},
        {only(tensor("x", {32}, 4, 0)), "unknown or withdrawn element type 4"},
        {only(tensor("x", {32}, 0xffffffff, 0)), "unknown or withdrawn"},
        {only(tensor("x", {8}, 0, 8)), "not a multiple of the alignment"},
        {only(tensor("x", {65}, 0, 0)), "reach past the end"},
        {only(tensor("x", {8}, 0, 256)), "reach past the end"},
        {only(tensor("x", {8}, 0, ~uint64_t(31))), "reach past the end"},
        {only(tensor("", {8}, 0, 0)), "empty name"},
        {file_of({}, {tensor("x", {8}, 0, 0), tensor("x", {8}, 0, 32)}, 64), "\"x\": the name appears twice"},
        {file_of({}, {tensor("x", {16}, 0, 0), tensor("y", {8}, 0, 32)}, 64), "overlaps"},
        {file_of({}, {tensor("x", {8}, 0, 0), tensor("y", {8}, 0, 0)}, 64), "overlaps"},
    };
    for (size_t i = 0; i < all.size(); i++) {
        std::string why = parse_error(all[i].file);
        EXPECT_NE(why, "") << "case " << i << " expected " << all[i].words;
        EXPECT_NE(why.find(all[i].words), std::string::npos) << "case " << i << ": " << why;
        EXPECT_LT(why.size(), 400u);
        EXPECT_EQ(why.find('\n'), std::string::npos);
    }
    std::string big = one(key("a", 10, raw(~uint64_t(0))));
    EXPECT_NE(error_of([&] { Gguf(bytes_of(big), "f").integer("a"); }).find("more than any model"),
              std::string::npos);
}

TEST(Gguf, WriterRefuses) {
    GgufWriter w;
    std::string bytes(34, 'x');
    EXPECT_NE(error_of([&] { w.add("x", BlockType::q8_0, {31}, bytes_of(bytes)); }), "");
    EXPECT_NE(error_of([&] { w.add("x", BlockType::q8_0, {64}, bytes_of(bytes)); }), "");
    EXPECT_NE(error_of([&] { w.add("", BlockType::q8_0, {32}, bytes_of(bytes)); }), "");
    w.add("x", BlockType::q8_0, {32}, bytes_of(bytes));
    EXPECT_NE(error_of([&] { w.add("x", BlockType::q8_0, {32}, bytes_of(bytes)); }), "");
    EXPECT_NE(error_of([&] { w.set("general.alignment", uint32_t(64)); }), "");
    EXPECT_NE(error_of([&] { w.write("/tmp/x.gguf", 33); }), "");
    EXPECT_NE(error_of([&] { w.write("/nowhere/x.gguf"); }), "");
}
