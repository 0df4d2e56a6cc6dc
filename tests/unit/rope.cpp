// Frequencies of every rope type against those of transformers (goldens), angles far out, position streams,
// and the property the rotation is for.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/io/safetensors.h"
#include "kernels/position/rope.h"

using namespace nvl;

namespace {

const Checkpoint& golden() {
    static Checkpoint file(NVL_SOURCE "/tests/golden/numerics/optim.safetensors");
    return file;
}
nlohmann::json notes() {
    return nlohmann::json::parse(read_file(NVL_SOURCE "/tests/golden/numerics/optim_notes.json"));
}

RopeConfig config_of(const nlohmann::json& j) {
    RopeConfig c{.type = rope_type_named(j.at("rope_type")),
                 .theta = j.at("rope_theta"),
                 .head_dim = j.at("head_dim")};
    c.max_position = j.value("max_position_embeddings", int64_t(0));
    c.original_max = j.value("original_max_position_embeddings", int64_t(0));
    c.partial = j.value("partial_rotary_factor", 1.0);
    c.factor = j.value("factor", 1.0);
    if (j.at("seq_len").is_number()) c.seq_len = j.at("seq_len");
    c.low_freq = j.value("low_freq_factor", 1.0), c.high_freq = j.value("high_freq_factor", 4.0);
    c.beta_fast = j.value("beta_fast", 32.0), c.beta_slow = j.value("beta_slow", 1.0);
    c.truncate = j.value("truncate", true);
    if (j.contains("mscale")) c.mscale = double(j.at("mscale"));
    if (j.contains("mscale_all_dim")) c.mscale_all_dim = double(j.at("mscale_all_dim"));
    if (j.contains("attention_factor")) c.attention_factor = double(j.at("attention_factor"));
    for (int i = 0; i < 48; i++) { // the goldens' longrope factors, as their notes define them
        c.short_factor.push_back(1 + 0.02 * i);
        c.long_factor.push_back(1 + 0.5 * i);
    }
    return c;
}

TEST(Rope, FrequenciesOfEveryTypeMatchTransformers) {
    int seen = 0;
    nlohmann::json all = notes();
    for (auto& [name, j] : all.items()) {
        if (name.rfind("rope.", 0) != 0) continue;
        seen++;
        RopeTable table = rope_table(config_of(j));
        std::vector<float> expected = read_as<float>(golden().at(name + ".inv_freq"));
        ASSERT_EQ(table.pairs, int64_t(expected.size())) << name;
        for (size_t i = 0; i < expected.size(); i++)
            EXPECT_NEAR(table.inv_freq[i], expected[i], 2.4e-7 * double(expected[i])) << name << " " << i;
        EXPECT_NEAR(table.scale, read_as<double>(golden().at(name + ".attention_factor"))[0], 1e-7) << name;
    }
    EXPECT_EQ(seen, 20);
}

Tensor integers(Store& store, Shape shape, std::vector<int32_t> values) {
    Tensor t = store.tensor("positions", shape, Dtype::i32);
    std::copy(values.begin(), values.end(), host<int32_t>(t));
    return t;
}

TEST(Rope, AnglesAreExactFarOut) {
    Store store;
    Tape tape(Tape::eager);
    Recording recording(tape);
    RopeTable table = rope_table({.theta = 5e5, .head_dim = 64});
    std::vector<int32_t> positions{0, 1, 4095, 131071, 1000003};
    float* a = host<float>(rope_angles(integers(store, {5}, positions), table));
    for (size_t t = 0; t < positions.size(); t++)
        for (size_t i = 0; i < 32; i++) {
            double angle = double(float(positions[t]) * table.inv_freq[i]);
            EXPECT_NEAR(a[t * 64 + i], std::cos(angle), 6e-8);
            EXPECT_NEAR(a[t * 64 + 32 + i], std::sin(angle), 6e-8);
        }
}

TEST(Rope, FrequenciesFollowTheirStreams) {
    RopeConfig chunks{.head_dim = 128, .sections = {16, 24, 24}}, turns = chunks;
    turns.sections = {24, 20, 20}, turns.interleaved_sections = true;
    RopeTable a = rope_table(chunks), b = rope_table(turns);
    EXPECT_EQ(a.streams(), 3);
    EXPECT_EQ(a.stream[15], 0);
    EXPECT_EQ(a.stream[16], 1);
    EXPECT_EQ(a.stream[40], 2);
    for (int i = 0; i < 64; i++) EXPECT_EQ(int(b.stream[size_t(i)]), i < 60 ? i % 3 : 0) << i;

    Store store;
    Tape tape(Tape::eager);
    Recording recording(tape);
    float* out = host<float>(rope_angles(integers(store, {1, 3}, {5, 70, 900}), a));
    int position[] = {5, 70, 900};
    for (size_t i = 0; i < 64; i++)
        EXPECT_NEAR(out[i], std::cos(double(float(position[a.stream[i]]) * a.inv_freq[i])), 6e-8) << i;
}

// q turned to place m times k turned to place n depends on m - n alone.
TEST(Rope, ProductsDependOnTheDistanceAlone) {
    Store store;
    Tape tape(Tape::eager);
    Recording recording(tape);
    for (Pairs pairs : {Pairs::half, Pairs::interleaved}) {
        Tensor x = store.tensor("x", {4, 1, 16}, Dtype::f32); // q, k, and both again 100 places on
        for (int i = 0; i < 64; i++) host<float>(x)[i] = std::sin(float(i % 32) * 1.7f);
        Tensor angles = rope_angles(integers(store, {4}, {9, 2, 109, 102}), rope_table({.head_dim = 16}));
        float *y = host<float>(rope(x, angles, pairs)), near = 0, far = 0;
        for (int i = 0; i < 16; i++) near += y[i] * y[16 + i], far += y[32 + i] * y[48 + i];
        EXPECT_NEAR(near, far, 1e-4);
        EXPECT_NE(y[1], y[33]);
    }
}

TEST(Rope, BadConfigurationsAreNamed) {
    auto message = [](RopeConfig c) -> std::string {
        try {
            rope_table(c);
        } catch (const Error& e) {
            return e.what();
        }
        return "";
    };
    EXPECT_NE(message({.head_dim = 1024}).find("512 pairs"), std::string::npos);
    EXPECT_NE(message({.type = RopeType::yarn, .head_dim = 64}).find("original"), std::string::npos);
    EXPECT_NE(message({.type = RopeType::longrope, .head_dim = 64, .max_position = 10}).find("0 factors"),
              std::string::npos);
    EXPECT_NE(message({.head_dim = 64, .sections = {1, 2}}).find("add up to 3"), std::string::npos);
    EXPECT_THROW(rope_type_named("spiral"), Error);
}

} // namespace
