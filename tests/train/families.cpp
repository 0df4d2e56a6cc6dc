// Every family trains: the loss falls, recompute and resuming change no bit, mixtures tell the load of their
// experts.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/train/runs.h"

using namespace nvl;
using namespace nvl::testing;

namespace {

using Words = std::vector<std::string>;

const Words MOE{"model.num_experts=4", "model.num_experts_per_tok=2", "model.moe_intermediate_size=32",
                "model.router_aux_loss_coef=0.01"};
const Words MLA{"model.q_lora_rank=24",     "model.kv_lora_rank=16",     "model.qk_nope_head_dim=12",
                "model.qk_rope_head_dim=8", "model.v_head_dim=12",       "model.first_k_dense_replace=1",
                "model.n_shared_experts=1", "model.num_hidden_layers=2", "model.n_group=2",
                "model.topk_group=1"};
const Words WINDOW{"model.sliding_window=8", "model.num_hidden_layers=2"};

Words join(Words a, const Words& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

struct Family {
    const char* type;
    Words settings;
};
const Family FAMILIES[] = {
    {"llama", {}},
    {"qwen2", {}},
    {"qwen3", {}},
    {"olmo2", {}},
    {"olmo3", WINDOW},
    {"gemma2", join(WINDOW, {"model.final_logit_softcapping=20", "model.attn_logit_softcapping=30"})},
    {"gemma3_text", WINDOW},
    {"smollm3", {}},
    {"mixtral", MOE},
    {"qwen3_moe", MOE},
    {"gpt_oss", join(MOE, WINDOW)},
    {"glm4_moe", join(MOE, {"model.n_shared_experts=1"})},
    {"deepseek_v2", join(MOE, MLA)},
    {"deepseek_v3", join(MOE, MLA)},
    {"kimi_k2", join(MOE, MLA)}};

class Families : public ::testing::TestWithParam<Family> {};

Words words_of(const Family& f, const Words& more) {
    return join(join({std::string("model.model_type=") + f.type}, f.settings), more);
}

} // namespace

TEST_P(Families, Train) {
    Folder f;
    std::vector<double> plain = train_here(f / "plain", words_of(GetParam(), {"steps=30", "save.every=15"}));
    EXPECT_LT(plain.back(), 0.85 * plain.front());

    train_here(f / "again", words_of(GetParam(), {"steps=30", "save.every=15", "recompute=full"}));
    EXPECT_EQ(weights_sha(f / "plain", 30), weights_sha(f / "again", 30)) << "recompute";

    std::filesystem::remove_all(checkpoint_folder(f / "again", 30));
    train_here(f / "again",
               words_of(GetParam(), {"steps=30", "save.every=15", "recompute=full", "resume=true"}));
    EXPECT_EQ(weights_sha(f / "plain", 30), weights_sha(f / "again", 30)) << "resumed";
}

INSTANTIATE_TEST_SUITE_P(All, Families, ::testing::ValuesIn(FAMILIES),
                         [](const auto& info) { return std::string(info.param.type); });

TEST(Mixture, TellsTheLoadOfItsExperts) {
    Folder f;
    train_here(f / "run",
               words_of({"qwen3_moe", MOE}, {"steps=2", "batch.accumulation=2", "optimizer.kind=muon"}));
    std::string metrics = read_file(f / "run/metrics.jsonl");
    Json first = Json::parse(metrics.substr(0, metrics.find('\n')));
    ASSERT_EQ(first["experts"].size(), 1u);
    int64_t chosen = 0;
    for (const Json& n : first["experts"][0]["counts"]) chosen += n.get<int64_t>();
    EXPECT_EQ(chosen, 2 * 2 * 4 * 32); // top_k x micro-batches x rows x tokens
    double balance = first["auxiliary"]["balance"];
    EXPECT_GE(balance, 1.99); // top_k if the load is even
    EXPECT_LE(balance, 8);
}

TEST(Mixture, LoadOfExperts) {
    EXPECT_DOUBLE_EQ(expert_load({5, 5, 5, 5}).evenness, 1);
    EXPECT_DOUBLE_EQ(expert_load({5, 5, 5, 5}).largest, 1);
    EXPECT_DOUBLE_EQ(expert_load({8, 0, 0, 0}).evenness, 0);
    EXPECT_DOUBLE_EQ(expert_load({8, 0, 0, 0}).largest, 4);
}
