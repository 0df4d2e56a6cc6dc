// Configs and schedules.
#include <gtest/gtest.h>

#include "tests/train/runs.h"

using namespace nvl;
using namespace nvl::testing;

namespace {

std::string error_with(const std::vector<std::string>& words) {
    return error_of([&] { read_config(TINY, words); });
}

TEST(Config, ReadsFileAndOverrides) {
    TrainConfig c = read_config(TINY, {"steps=7", "optimizer.lr=1e-4", "model.hidden_size=32", "mesh.dp=1",
                                       "sample.prompts=one,two", "resume=true"});
    EXPECT_EQ(c.steps, 7);
    EXPECT_EQ(c.schedule.steps, 7);
    EXPECT_DOUBLE_EQ(c.optimizer.lr, 1e-4);
    EXPECT_EQ(c.model["hidden_size"], 32);
    EXPECT_TRUE(c.model["tie_word_embeddings"].is_boolean());
    EXPECT_DOUBLE_EQ(c.model["rms_norm_eps"].get<double>(), 1e-6);
    EXPECT_EQ(c.prompts, (std::vector<std::string>{"one", "two"}));
    EXPECT_TRUE(c.resume);
    EXPECT_TRUE(exists(c.data_path.at(0))) << "taken from the config's folder";
}

TEST(Config, MistakesAreNamed) {
    struct Row {
        const char *word, *expected;
    };
    const Row rows[] = {
        {"optimzer.lr=1", "did you mean \"optimizer.lr\""},
        {"lr=1", "did you mean \"optimizer.lr\""},
        {"step=3", "did you mean \"steps\""},
        {"steps=many", "steps: expected a whole number, found \"many\""},
        {"steps=0", "steps: expected at least 1"},
        {"optimizer.lr=fast", "optimizer.lr: expected a number"},
        {"resume=yes", "resume: expected true or false"},
        {"schedule.kind=cosin", "did you mean cosine"},
        {"dtype=fp8", "dtype: expected f32 or bf16"},
        {"recompute=some", "recompute: expected none, full or every:K"},
        {"mesh.dp=2", "mesh.dp=2"},
        {"optimizer.beta1=1.5", "betas"},
        {"device=tpu", "device: expected cpu or cuda"},
        {"steps", "expected key=value"},
        {"batch.rows=0", "batch.rows: expected at least 1"},
    };
    for (auto& r : rows)
        EXPECT_NE(error_with({r.word}).find(r.expected), std::string::npos) << error_with({r.word});
}

TEST(Config, BadFiles) {
    Folder f;
    write_file(f / "a.yaml", "steps: [1, 2\n");
    EXPECT_NE(error_of([&] { read_config(f / "a.yaml", {}); }).find("not valid YAML"), std::string::npos);
    write_file(f / "b.yaml", "optimiser:\n  lr: 1\n");
    EXPECT_NE(error_of([&] { read_config(f / "b.yaml", {}); }).find("unknown key \"optimiser\""),
              std::string::npos);
    write_file(f / "c.yaml", "steps: [1, 2]\n");
    EXPECT_NE(error_of([&] { read_config(f / "c.yaml", {}); }).find("found a list"), std::string::npos);
    write_file(f / "d.yaml", "just text\n");
    EXPECT_NE(error_of([&] { read_config(f / "d.yaml", {}); }).find("mapping"), std::string::npos);
    EXPECT_NE(error_of([&] { read_config(f / "none.yaml", {}); }).find("none.yaml"), std::string::npos);
}

TEST(Config, EveryShippedConfigReads) {
    for (auto& entry : std::filesystem::directory_iterator(std::string(NVL_SOURCE) + "/train/configs"))
        if (entry.path().extension() == ".yaml")
            EXPECT_EQ(error_of([&] { read_config(entry.path().string(), {}); }), "");
}

TEST(Schedule, Table) {
    struct Row {
        const char* kind;
        int64_t steps, warmup;
        double final_fraction, decay;
        int64_t step;
        double expected;
    };
    const Row rows[] = {
        {"constant", 100, 10, 0, 0.2, 0, 0.1}, {"constant", 100, 10, 0, 0.2, 9, 1},
        {"constant", 100, 10, 0, 0.2, 99, 1},  {"linear", 101, 0, 0, 0.2, 0, 1},
        {"linear", 101, 0, 0, 0.2, 50, 0.5},   {"linear", 101, 0, 0.5, 0.2, 100, 0.5},
        {"cosine", 101, 0, 0, 0.2, 50, 0.5},   {"cosine", 101, 0, 0.1, 0.2, 100, 0.1},
        {"cosine", 111, 10, 0.1, 0.2, 10, 1},  {"cosine", 101, 0, 0, 0.2, 25, 0.85355339},
        {"wsd", 100, 5, 0, 0.2, 4, 1},         {"wsd", 100, 5, 0, 0.2, 80, 1},
        {"wsd", 100, 5, 0.05, 0.2, 99, 0.05},  {"wsd", 101, 0, 0, 1, 50, 0.5},
        {"linear", 1, 0, 0.1, 0.2, 0, 1},      {"cosine", 5, 10, 0, 0.2, 4, 0.5},
    };
    for (auto& r : rows) {
        Schedule s{r.kind, r.steps, r.warmup, r.final_fraction, r.decay};
        EXPECT_NEAR(s.factor(r.step), r.expected, 1e-7) << r.kind << " " << r.step;
    }
}

TEST(Schedule, NeverLeavesItsRange) {
    for (const char* kind : {"constant", "linear", "cosine", "wsd"})
        for (int64_t steps : {1, 2, 7, 100})
            for (int64_t warmup : {0, 1, 50, 200}) {
                Schedule s{kind, steps, warmup, 0.1, 0.3};
                for (int64_t i = 0; i < steps; i++) {
                    EXPECT_GT(s.factor(i), 0);
                    EXPECT_LE(s.factor(i), 1);
                }
            }
}

} // namespace
