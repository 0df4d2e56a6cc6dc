// The commands with --device cuda: goldens, the same greedy tokens as on the CPU, checkpoints, one clear line
// for a mistake.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/io/safetensors.h"
#include "models/checkpoint.h"
#include "tests/train/runs.h"

using namespace nvl;
using nvl::testing::command;
using nvl::testing::Folder;
using nvl::testing::Outcome;

namespace {

const std::string GOLDEN = std::string(NVL_SOURCE) + "/tests/golden/";

double norm(const std::vector<double>& a) {
    double s = 0;
    for (double x : a) s += x * x;
    return std::sqrt(s);
}

class CudaGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(CudaGolden, MatchesTheReference) {
    std::string family = GOLDEN + GetParam();
    Folder f;
    Outcome o = command("vgpu/forward",
                        {"--device", "cuda", "--model", family, "--inputs", family + "/golden.safetensors",
                         "--output", f / "out.safetensors", "--gradients", "--greedy", "4"});
    ASSERT_EQ(o.status, 0) << o.output;
    Checkpoint golden(family + "/golden.safetensors"), ours(f / "out.safetensors");
    size_t gradients = 0;
    for (const StoredTensor& expected : golden.tensors()) {
        if (expected.name.rfind("in.", 0) == 0 || expected.name == "greedy_logits_last") continue;
        const StoredTensor* found = ours.find(expected.name);
        ASSERT_TRUE(found) << expected.name << " is missing";
        auto a = read_as<double>(*found), b = read_as<double>(expected);
        if (expected.name == "greedy_tokens") {
            int64_t all = expected.shape[-1], rows = expected.shape[0];
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < 4; i++)
                    EXPECT_EQ(a[size_t(r * 4 + i)], b[size_t(r * all + i)]) << r << " " << i;
            continue;
        }
        ASSERT_EQ(a.size(), b.size()) << expected.name;
        std::vector<double> d;
        for (size_t i = 0; i < a.size(); i++) d.push_back(a[i] - b[i]);
        if (expected.name.rfind("grad", 0) == 0) {
            gradients++;
            EXPECT_LE(norm(d), 1e-4 * norm(b)) << expected.name;
        } else
            for (double x : d) ASSERT_LE(std::abs(x), 1e-4) << expected.name;
    }
    EXPECT_GT(gradients, 10u);
}
INSTANTIATE_TEST_SUITE_P(Families, CudaGolden,
                         ::testing::Values("gpt2", "llama", "qwen2", "qwen3", "olmo2", "olmo3", "gemma2",
                                           "gemma3", "smollm3", "mixtral", "qwen3_moe", "gpt_oss", "glm4_moe",
                                           "deepseek_v2", "deepseek_v3", "kimi_k2"),
                         [](const auto& info) { return info.param; });

TEST(CudaCommands, GenerateGivesTheTokensOfTheCpu) {
    for (const char* family : {"gpt2", "qwen3"})
        for (const char* dtype : {"f32", "bf16"}) {
            std::vector<std::string> words{
                "--model", GOLDEN + family, "--prompt-ids", "3,17,5,60,2", "--max-tokens",
                "6",       "--ignore-eos",  "--dtype",      dtype,         "--json"};
            Outcome cpu = command("vgpu/generate", words);
            words.insert(words.end(), {"--device", "cuda"});
            Outcome gpu = command("vgpu/generate", words);
            ASSERT_EQ(cpu.status, 0) << cpu.output;
            ASSERT_EQ(gpu.status, 0) << gpu.output;
            Json a = Json::parse(cpu.output), b = Json::parse(gpu.output);
            EXPECT_EQ(a["ids"], b["ids"]) << family << " " << dtype;
            for (size_t i = 0; i < a["logprobs"].size(); i++)
                EXPECT_NEAR(a["logprobs"][i].get<double>(), b["logprobs"][i].get<double>(),
                            dtype[0] == 'f' ? 1e-4 : 0.05);
        }
}

std::vector<std::string> training(const Folder& f, const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> words{std::string(NVL_SOURCE) + "/train/configs/tiny.yaml",
                                   "out_dir=" + f / out,
                                   "data.cache=" + f / "data",
                                   "batch.rows=2",
                                   "batch.accumulation=1",
                                   "data.row_length=32",
                                   "model.num_hidden_layers=1",
                                   "eval.every=2",
                                   "eval.rows=2",
                                   "sample.every=0"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

TEST(CudaCommands, PretrainFollowsTheCpuAndResumesBitwise) {
    Folder f;
    auto losses = [&](const std::string& out) {
        std::vector<double> all;
        std::string text = read_file(f / out + "/metrics.jsonl");
        for (size_t at = 0, end; (end = text.find('\n', at)) != text.npos; at = end + 1)
            all.push_back(Json::parse(text.substr(at, end - at))["loss"]);
        return all;
    };
    auto run = [&](const std::string& out, std::vector<std::string> more) {
        Outcome o = command("vgpu/pretrain", training(f, out, std::move(more)));
        ASSERT_EQ(o.status, 0) << o.output;
    };
    run("cpu", {"steps=4"});
    run("gpu", {"steps=4", "device=cuda"});
    run("parts", {"steps=2", "device=cuda"});
    run("parts", {"steps=4", "device=cuda", "resume=true"});
    auto cpu = losses("cpu"), gpu = losses("gpu");
    ASSERT_EQ(cpu.size(), 4u);
    ASSERT_EQ(gpu.size(), 4u);
    for (size_t i = 0; i < 4; i++) EXPECT_NEAR(gpu[i], cpu[i], 1e-4 * cpu[i]) << "step " << i;
    EXPECT_EQ(read_file(f / "gpu/step-4/model.safetensors"), read_file(f / "parts/step-4/model.safetensors"));
    EXPECT_EQ(read_file(f / "gpu/step-4/optimizer.safetensors"),
              read_file(f / "parts/step-4/optimizer.safetensors"));
}

void expect_line(const Outcome& o, const std::string& part) {
    EXPECT_GT(o.status, 0) << o.output;
    EXPECT_NE(o.output.find(part), std::string::npos) << o.output;
    EXPECT_LE(std::count(o.output.begin(), o.output.end(), '\n'), 1) << o.output;
}
TEST(CudaCommands, MistakesAreOneClearLine) {
    std::vector<std::string> words{"--model", GOLDEN + "gpt2", "--prompt-ids", "1", "--device", "cuda"};
    expect_line(command("generate", words), "this build has no CUDA; run `make cuda`");
    words.back() = "tpu";
    expect_line(command("vgpu/generate", words), "--device expects cpu or cuda, found \"tpu\"");
    words.back() = "cuda";
    setenv("VGPU_MEMORY", "65536", 1);
    Outcome small = command("vgpu/generate", words);
    unsetenv("VGPU_MEMORY");
    expect_line(small, "missing");
    setenv("VGPU_DEVICES", "0", 1);
    Outcome none = command("vgpu/generate", words);
    unsetenv("VGPU_DEVICES");
    expect_line(none, "no usable GPU");
}

} // namespace
