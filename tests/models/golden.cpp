// Every family against float64 references: logits, loss, every gradient, sixteen greedy tokens.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "engine/io/safetensors.h"

using namespace nvl;

namespace {

const std::string GOLDEN = std::string(NVL_SOURCE) + "/tests/golden/";

void run(const std::string& command) {
    int status = std::system((std::string(NVL_BIN) + "/" + command).c_str());
    ASSERT_EQ(status, 0) << command;
}

double norm(const std::vector<double>& a) {
    double s = 0;
    for (double x : a) s += x * x;
    return std::sqrt(s);
}

class Golden : public testing::TestWithParam<std::string> {};

// A copy of the golden folder whose config.json is the chosen style.
std::string model_folder(const std::string& family, const std::string& config) {
    std::string folder = testing::TempDir() + "nvl_" + family + "_" + config;
    make_directories(folder);
    write_file(folder + "/config.json", read_file(GOLDEN + family + "/" + config));
    write_file(folder + "/model.safetensors", read_file(GOLDEN + family + "/model.safetensors"));
    return folder;
}

void compare(const std::string& family, const std::string& output) {
    Checkpoint golden(GOLDEN + family + "/golden.safetensors"), ours(output);
    size_t gradients = 0;
    for (const StoredTensor& expected : golden.tensors()) {
        if (expected.name.rfind("in.", 0) == 0) continue;
        const StoredTensor* found = ours.find(expected.name);
        ASSERT_TRUE(found) << expected.name << " is missing";
        ASSERT_EQ(found->count(), expected.count()) << expected.name;
        auto a = read_as<double>(*found), b = read_as<double>(expected);
        double worst = 0, square = 0;
        for (size_t i = 0; i < a.size(); i++)
            worst = std::max(worst, std::abs(a[i] - b[i])), square += (a[i] - b[i]) * (a[i] - b[i]);
        if (expected.name == "greedy_tokens")
            EXPECT_EQ(a, b);
        else if (expected.name.rfind("grad", 0) == 0) {
            gradients++;
            EXPECT_LE(std::sqrt(square), 1e-4 * norm(b)) << expected.name;
        } else
            EXPECT_LE(worst, 1e-4) << expected.name;
    }
    EXPECT_GT(gradients, 10u);
}

TEST_P(Golden, MatchesTheReference) {
    for (const char* config : {"config.json", "config.hub.json"}) {
        std::string output = testing::TempDir() + "nvl_" + GetParam() + ".safetensors";
        run("forward --model " + model_folder(GetParam(), config) + " --inputs " + GOLDEN + GetParam() +
            "/golden.safetensors --output " + output + " --gradients --greedy 16");
        compare(GetParam(), output);
    }
}

} // namespace

INSTANTIATE_TEST_SUITE_P(Families, Golden,
                         testing::Values("gpt2", "llama", "qwen2", "qwen3", "olmo2", "olmo3", "gemma2",
                                         "gemma3", "smollm3", "mixtral", "qwen3_moe", "gpt_oss", "glm4_moe",
                                         "deepseek_v2", "deepseek_v3", "kimi_k2"),
                         [](const auto& info) { return info.param; });
