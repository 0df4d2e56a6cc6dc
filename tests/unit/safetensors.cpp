// engine/io: safetensors in and out, conversion, and everything a damaged file can hold.
#include "engine/io/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "engine/base/rng.h"
#include "engine/io/safetensors_header.h"
#include "tests/unit/files.h"

using namespace nvl;

static std::string file_of(const std::string& header, const std::string& data = "") {
    return raw(uint64_t(header.size())) + header + data;
}
/// The error of parsing a file in memory; the heap copy has no byte to spare, so sanitizers see overreads.
static std::string parse_error(const std::string& file) {
    std::vector<char> exact(file.begin(), file.end());
    return error_of([&] {
        auto h = parse_safetensors({reinterpret_cast<const std::byte*>(exact.data()), exact.size()}, "f");
        for (auto& t : h.tensors) {
            check(t.count() * size_of(t.type) == int64_t(t.bytes.size()),
                  "a tensor's bytes are not its shape's");
            if (t.type != StoredType::f8_e4m3 && t.type != StoredType::f8_e5m2) read_as<float>(t);
        }
    });
}

TEST(Safetensors, RoundTripEveryType) {
    TemporaryFolder dir;
    std::vector<float> f(12);
    for (size_t i = 0; i < f.size(); i++) f[i] = float(Random(1).normal(i));
    std::vector<double> d(f.begin(), f.end());
    std::vector<int32_t> n{1, -2, INT32_MAX, INT32_MIN};
    std::vector<uint8_t> u{0, 255, 7};
    write_safetensors(dir / "a.safetensors",
                      {{"f", {3, 4}, f.data(), Dtype::f32},
                       {"d", {12}, d.data(), Dtype::f64},
                       {"as_bf16", {2, 6}, f.data(), Dtype::f32, StoredType::bf16},
                       {"as_f16", {2, 6}, f.data(), Dtype::f32, StoredType::f16},
                       {"as_i64", {4}, n.data(), Dtype::i32, StoredType::i64},
                       {"i", {2, 2}, n.data(), Dtype::i32},
                       {"u", {3}, u.data(), Dtype::u8},
                       {"empty", {0, 5}, nullptr, Dtype::f32},
                       {"scalar", {}, f.data(), Dtype::f32}},
                      {{"format", "pt"}, {"k", "v\"\n\xc3\xa9"}});
    Checkpoint c(dir / "a.safetensors");
    EXPECT_EQ(c.tensors().size(), 9u);
    EXPECT_EQ(c.metadata().at("k"), "v\"\n\xc3\xa9");
    EXPECT_EQ(c.at("f").shape, (Shape{3, 4}));
    EXPECT_EQ(read_as<float>(c.at("f")), f);
    EXPECT_EQ(read_as<double>(c.at("d")), d);
    EXPECT_EQ(read_as<int32_t>(c.at("i")), n);
    EXPECT_EQ(read_as<int32_t>(c.at("as_i64")), n);
    EXPECT_EQ(read_as<uint8_t>(c.at("u")), u);
    EXPECT_EQ(read_as<int32_t>(c.at("u")), (std::vector<int32_t>{0, 255, 7}));
    EXPECT_EQ(c.at("scalar").count(), 1);
    EXPECT_EQ(c.at("empty").count(), 0);
    auto b = read_as<float>(c.at("as_bf16")), h = read_as<float>(c.at("as_f16"));
    for (size_t i = 0; i < f.size(); i++) {
        EXPECT_EQ(b[i], float(bf16(f[i])));
        EXPECT_EQ(h[i], float(f16(f[i])));
    }
    std::string raw_file = read_file(dir / "a.safetensors");
    uint64_t header = 0;
    std::memcpy(&header, raw_file.data(), 8);
    EXPECT_EQ(header % 8, 0u);
    EXPECT_NE(error_of([&] { c.at("ff"); }).find("did you mean \"f\""), std::string::npos);
}

TEST(Safetensors, ConversionRoundsOnceAndRefusesWhatDoesNotFit) {
    auto stored = [](StoredType t, const std::string& data) {
        return StoredTensor{"x", t, {int64_t(data.size()) / size_of(t)}, bytes_of(data)};
    };
    // just above the middle of two bf16 (and of two floats): by way of a float it would fall to the even one
    std::string above =
        raw(1 + 0x1p-8 + 0x1p-40) + raw(-(1 + 0x1p-8 + 0x1p-40)) + raw(1e300) + raw(double(NAN));
    auto y = read_as<bf16>(stored(StoredType::f64, above));
    EXPECT_EQ(float(y[0]), 1 + 0x1p-7f);
    EXPECT_EQ(float(y[1]), -(1 + 0x1p-7f));
    EXPECT_EQ(float(y[2]), INFINITY);
    EXPECT_TRUE(std::isnan(float(y[3])));
    auto half = read_as<f16>(stored(StoredType::f64, raw(1 + 0x1p-11 + 0x1p-40)));
    EXPECT_EQ(float(half[0]), 1 + 0x1p-10f);

    std::string big = raw(int64_t(5)) + raw(int64_t(INT32_MAX) + 1);
    std::string why = error_of([&] { read_as<int32_t>(stored(StoredType::i64, big)); });
    EXPECT_NE(why.find("element 1 is 2147483648"), std::string::npos) << why;
    EXPECT_EQ(read_as<double>(stored(StoredType::i64, big))[1], 2147483648.0);
    std::string negative = raw(int8_t(-1));
    EXPECT_NE(error_of([&] { read_as<uint8_t>(stored(StoredType::i8, negative)); }), "");
    EXPECT_EQ(read_as<float>(stored(StoredType::i8, negative))[0], -1.0f);
    EXPECT_NE(
        error_of([&] { read_as<int32_t>(stored(StoredType::f32, raw(1.0f))); }).find("expected integers"),
        std::string::npos);
    EXPECT_NE(
        error_of([&] { read_as<float>(stored(StoredType::f8_e4m3, "abcd")); }).find("F8_E4M3 cannot be"),
        std::string::npos);
}

TEST(Safetensors, ShardsAndTheirIndex) {
    TemporaryFolder dir;
    std::vector<std::vector<float>> data(7);
    std::vector<TensorSource> tensors;
    for (size_t i = 0; i < data.size(); i++) {
        data[i].assign(10, float(i));
        tensors.emplace_back("t" + std::to_string(i), Shape{10}, data[i].data(), Dtype::f32);
    }
    write_checkpoint(dir / "one", tensors);
    EXPECT_TRUE(exists(dir / "one/model.safetensors"));
    write_checkpoint(dir / "many", tensors, 85); // two tensors of 40 bytes each
    EXPECT_TRUE(exists(dir / "many/model-00001-of-00004.safetensors"));
    for (auto* folder : {"one", "many"}) {
        Checkpoint c(dir / folder);
        EXPECT_EQ(c.tensors().size(), 7u);
        for (size_t i = 0; i < 7; i++) EXPECT_EQ(read_as<float>(c.at("t" + std::to_string(i))), data[i]);
    }
    EXPECT_NE(error_of([&] { write_checkpoint(dir / "many", tensors); }).find("already"), std::string::npos);
    std::string index = read_file(dir / "many/model.safetensors.index.json");
    EXPECT_NE(index.find("\"total_size\": 280"), std::string::npos) << index;

    auto broken = [&](const std::string& text) {
        std::ofstream(dir / "many/model.safetensors.index.json") << text; // without write_file's fsync
        return error_of([&] { Checkpoint c(dir / "many"); });
    };
    auto replaced = [&](std::string from, std::string to) {
        std::string text = index;
        text.replace(text.find(from), from.size(), to);
        return broken(text);
    };
    EXPECT_EQ(broken(index), "");
    EXPECT_NE(replaced("model-00001-of", "../m-00001-of").find("is not a .safetensors file beside"),
              std::string::npos);
    EXPECT_NE(replaced("model-00001-of", "model-00009-of").find("-00009-of-00004.safetensors is missing"),
              std::string::npos);
    EXPECT_NE(replaced("\"t1\"", "\"t0\"").find("\"t0\" appears twice"), std::string::npos);
    EXPECT_NE(replaced("\"t1\"", "\"tt\"").find("\"tt\" is not in"), std::string::npos);
    EXPECT_NE(replaced("model-00001-of", "model-00002-of").find("is not in"), std::string::npos);
    EXPECT_NE(broken("").find("not JSON"), std::string::npos);
    EXPECT_NE(broken("[]").find("weight_map"), std::string::npos);
    EXPECT_NE(broken("{\"weight_map\": {\"t0\": 3}}"), "");
    EXPECT_NE(broken("{\"weight_map\": " + std::string(100000, '[')), "");
    for (size_t n = 0; n < index.size() - 3; n++) EXPECT_NE(broken(index.substr(0, n)), "") << n;
    std::filesystem::remove(dir / "many/model.safetensors.index.json");
    EXPECT_NE(error_of([&] { Checkpoint c(dir / "many"); }).find("no weights in this folder"),
              std::string::npos);
    EXPECT_NE(error_of([&] { Checkpoint c(dir / "nothing"); }), "");
}

TEST(Safetensors, RefusesWhatIsWrong) {
    std::string x = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})", eight(8, 'x');
    ASSERT_EQ(parse_error(file_of("{" + x + "}  ", eight)), "");
    ASSERT_EQ(parse_error(file_of("{}")), "");
    struct Wrong {
        std::string file, words;
    };
    auto tensor = [&](const std::string& fields) { return file_of("{\"x\":{" + fields + "}}", eight); };
    std::string nested;
    for (int i = 0; i < 100000; i++) nested += "{\"x\":";
    std::vector<Wrong> all = {
        {"", "0 bytes"},
        {raw(uint64_t(0)) + "{}", "header of 0 bytes"},
        {raw(uint64_t(1) << 63) + "{}", "header of 9223372036854775808"},
        {raw(uint64_t(3)) + "{}", "is it cut off"},
        {raw(uint64_t(100'000'001)) + std::string(50, ' '), "header of 100000001"},
        {file_of(" {}"), "expected '{'"},
        {file_of("[]"), "expected '{'"},
        {file_of("{} x"), "not JSON"},
        {file_of("{}{}"), "not JSON"},
        {file_of("{\"\xff\":{}}"), "not JSON"},
        {file_of("{\"x\":1}"), "expected an object, found a number"},
        {file_of("{\"x\":null}"), "found null"},
        {file_of("{\"x\":[]}"), "found an array"},
        {file_of(nested), ""},
        {file_of("{" + x + "," + x + "}", eight), "\"x\" appears twice"},
        {file_of("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"), "\"a\" appears twice"},
        {file_of("{\"__metadata__\":{\"a\":1}}"), "expected a string, found a number"},
        {file_of("{\"__metadata__\":{\"a\":{}}}"), "expected a string, found an object"},
        {file_of("{\"__metadata__\":\"a\"}"), "expected an object, found a string"},
        {tensor(R"("dtype":"F32","shape":[2])"), "data_offsets is missing"},
        {tensor(R"("dtype":"F32","data_offsets":[0,8])"), "shape is missing"},
        {tensor(R"("shape":[2],"data_offsets":[0,8])"), "dtype is missing"},
        {tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1)"), "found the key \"more\""},
        {tensor(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"),
         "\"dtype\" appears twice"},
        {tensor(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"), "unknown dtype \"F33\""},
        {tensor(R"("dtype":1,"shape":[2],"data_offsets":[0,8])"), "dtype: expected a string, found a number"},
        {tensor(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), "shape: expected a list"},
        {tensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), "found a fraction"},
        {tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "found a negative number"},
        {tensor(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])"), "found a string"},
        {tensor(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"), "found an array"},
        {tensor(R"("dtype":"F32","shape":[1,1,1,1,1,2],"data_offsets":[0,8])"), "more than 5"},
        {tensor(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8])"), "beyond 64 bits"},
        {tensor(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])"), "more than any file"},
        {tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"), "overflows"},
        {tensor(R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])"), "overflows"},
        {tensor(R"("dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,8])"), "overflows"},
        {tensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), "takes 12 bytes, data_offsets give 8"},
        {tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"), "more than 2"},
        {tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8])"), "has 1 entries"},
        {tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "do not lie"},
        {tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,16])"), "do not lie"},
        {tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "after a hole"},
        {tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "end at byte 4"},
        {file_of("{" + x + R"(,"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", eight),
         "inside the tensor"},
    };
    for (size_t i = 0; i < all.size(); i++) {
        std::string why = parse_error(all[i].file);
        EXPECT_NE(why, "") << "case " << i << " expected " << all[i].words;
        EXPECT_NE(why.find(all[i].words), std::string::npos) << "case " << i << ": " << why;
        EXPECT_LT(why.size(), 400u);
        EXPECT_EQ(why.find('\n'), std::string::npos);
    }
}

TEST(Safetensors, EveryTruncationIsRefusedAndNoMutationCrashes) {
    TemporaryFolder dir;
    std::vector<float> f(6, 1.5f);
    std::vector<int32_t> n(3, 7);
    write_safetensors(dir / "a.safetensors",
                      {{"layer.weight", {2, 3}, f.data(), Dtype::f32}, {"ids", {3}, n.data(), Dtype::i32}});
    std::string file = read_file(dir / "a.safetensors");
    for (size_t i = 0; i < file.size(); i++) EXPECT_NE(parse_error(file.substr(0, i)), "") << i;
    EXPECT_NE(parse_error(file + "x"), "");
    size_t header = file.size() - 36;
    for (size_t i = 0; i < header; i++)
        for (int v : {0, 1, int('"'), int('['), int('}'), int('9'), int('-'), 0x7f, 0x80, 0xff}) {
            std::string other = file;
            other[i] = char(v);
            parse_error(other); // any Error is fine; another exception or a bad access is not
        }
}

TEST(Safetensors, WritersRefuseAndLeaveNothingBehind) {
    TemporaryFolder dir;
    float x = 1;
    auto path = dir / "a.safetensors";
    EXPECT_NE(error_of([&] {
                  write_safetensors(path, {{"x", {1}, &x, Dtype::f32}, {"x", {1}, &x, Dtype::f32}});
              }),
              "");
    EXPECT_NE(error_of([&] { write_safetensors(path, {{"__metadata__", {1}, &x, Dtype::f32}}); }), "");
    EXPECT_NE(error_of([&] {
                  write_safetensors(path, {{"\xff", {1}, &x, Dtype::f32}});
              }).find("not UTF-8"),
              std::string::npos);
    EXPECT_NE(error_of([&] { write_safetensors(path, {{"x", {1}, &x, Dtype::f32, StoredType::i32}}); }), "");
    EXPECT_NE(error_of([&] { write_safetensors(dir / "no/such", {{"x", {1}, &x, Dtype::f32}}); }), "");
    EXPECT_TRUE(std::filesystem::is_empty(dir.path));
}
