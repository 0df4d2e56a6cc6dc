// kernels/quant: values bit-equal to the reference's on tests/golden/quant (made by
// tests/golden/make_quant.py).
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/io/safetensors.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/quantize.h"
#include "tests/unit/files.h"

using namespace nvl;

static bool same(float a, float b) {
    return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

TEST(Quant, EveryTypeHasTheValuesOfTheReference) {
    Checkpoint golden(NVL_SOURCE "/tests/golden/quant/blocks.safetensors");
    int types = 0;
    for (auto& t : golden.tensors()) {
        if (!t.name.ends_with(".bytes")) continue;
        std::string name = t.name.substr(0, t.name.size() - 6);
        BlockType type = block_type_from(name);
        auto expected = read_as<float>(golden.at(name + ".values"));
        std::vector<float> y(expected.size(), -1);
        dequantize(type, t.bytes, int64_t(y.size()), y.data());
        for (size_t i = 0; i < y.size(); i++) ASSERT_TRUE(same(y[i], expected[i])) << name << " " << i;
        EXPECT_TRUE(can_dequantize(type));
        types++;
    }
    EXPECT_EQ(types, 16);
    EXPECT_FALSE(can_dequantize(BlockType::iq2_xxs));
}

TEST(Quant, QuantizesAsTheReference) {
    Checkpoint golden(NVL_SOURCE "/tests/golden/quant/quantized.safetensors");
    auto x = read_as<float>(golden.at("x"));
    for (auto* name : {"q8_0", "q4_0", "q4_1", "bf16", "f16"}) {
        auto bytes = quantize(block_type_from(name), x);
        auto expected = golden.at(name).bytes;
        ASSERT_EQ(bytes.size(), expected.size());
        for (size_t i = 0; i < bytes.size(); i++)
            ASSERT_EQ(int(bytes[i]), int(expected[i])) << name << " byte " << i;
    }
}

TEST(Quant, HalfIsExactForEveryPattern) {
    for (uint32_t i = 0; i < 65536; i++) {
        f16 h;
        h.bits = uint16_t(i);
        ASSERT_TRUE(same(quant::half_to_float(h.bits), float(h))) << i;
    }
}

TEST(Quant, ErrorStaysWithinHalfAStep) {
    std::vector<float> x(4096), y(x.size());
    for (size_t i = 0; i < x.size(); i++) x[i] = float(Random(3).normal(i));
    struct Bound {
        BlockType type;
        float steps; // of the block's largest magnitude
    };
    for (auto [type, steps] : {Bound{BlockType::q8_0, 0.5f / 127 + 0.001f}, Bound{BlockType::q4_0, 1.01f / 8},
                               Bound{BlockType::q4_1, 0.51f * 2 / 15}}) {
        auto bytes = quantize(type, x);
        dequantize(type, bytes, int64_t(x.size()), y.data());
        for (size_t b = 0; b < x.size(); b += 32) {
            float largest = 0;
            for (size_t i = b; i < b + 32; i++) largest = std::max(largest, std::fabs(x[i]));
            for (size_t i = b; i < b + 32; i++)
                ASSERT_LE(std::fabs(x[i] - y[i]), steps * largest) << name_of(type) << i;
        }
    }
}

TEST(Quant, SameBitsForAnyThreadsTypesAndAlignment) {
    const int64_t n = 256 * 300;
    std::string random(size_t(block_bytes(BlockType::q6_k, n)) + 1, '\0');
    for (size_t i = 0; i < random.size(); i++) random[i] = char(Random(4).below(i, 120));
    auto aligned = bytes_of(random).first(random.size() - 1);
    std::vector<float> one(size_t(n), 0), two(size_t(n), 0);
    set_threads(1);
    dequantize(BlockType::q6_k, aligned, n, one.data());
    set_threads(2);
    dequantize(BlockType::q6_k, aligned, n, two.data());
    EXPECT_EQ(std::memcmp(one.data(), two.data(), size_t(n) * 4), 0);

    std::string shifted = "x" + random;
    dequantize(BlockType::q6_k, bytes_of(shifted).subspan(1, aligned.size()), n, two.data());
    EXPECT_EQ(std::memcmp(one.data(), two.data(), size_t(n) * 4), 0);
    std::vector<bf16> b(size_t(n), 0.0f);
    dequantize(BlockType::q6_k, aligned, n, Dtype::bf16, b.data());
    std::vector<double> d(size_t(n), 0);
    dequantize(BlockType::q6_k, aligned, n, Dtype::f64, d.data());
    for (size_t i = 0; i < size_t(n); i++) {
        ASSERT_EQ(b[i].bits, bf16(one[i]).bits);
        ASSERT_EQ(d[i], double(one[i]));
    }
}

TEST(Quant, RefusesWhatDoesNotFit) {
    std::vector<float> x(32, 1), y(64);
    auto bytes = quantize(BlockType::q8_0, x);
    EXPECT_NE(
        error_of([&] { dequantize(BlockType::q8_0, bytes, 64, y.data()); }).find("take 68 bytes, found 34"),
        std::string::npos);
    EXPECT_NE(error_of([&] { dequantize(BlockType::q8_0, bytes, 31, y.data()); }).find("multiple"),
              std::string::npos);
    EXPECT_NE(error_of([&] { dequantize(BlockType::iq1_s, {}, 0, y.data()); }).find("IQ1_S cannot be read"),
              std::string::npos);
    EXPECT_NE(error_of([&] { dequantize(BlockType::q8_0, bytes, 32, Dtype::i32, y.data()); }), "");
    EXPECT_NE(error_of([&] { quantize(BlockType::q6_k, x); }), "");
    for (float bad : {NAN, INFINITY, 1e38f}) {
        x[5] = bad;
        for (auto t : {BlockType::q8_0, BlockType::q4_0, BlockType::q4_1})
            EXPECT_NE(error_of([&] { quantize(t, x); }), "") << name_of(t) << bad;
    }
    x.assign(32, 1e-42f); // its scale vanishes in f16 and 1 / d would overflow
    for (auto t : {BlockType::q8_0, BlockType::q4_0, BlockType::q4_1}) {
        dequantize(t, quantize(t, x), 32, y.data());
        EXPECT_EQ(y[7], 0.0f);
    }
}
