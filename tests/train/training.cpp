// What a training run promises: it learns, and how it is cut into pieces changes nothing.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/base/parallel.h"
#include "tests/train/runs.h"

using namespace nvl;
using namespace nvl::testing;

namespace {

TEST(Training, LossFallsWithAdamW) {
    Folder f;
    auto losses = train_here(f / "run", {"steps=40", "optimizer.lr=5e-3"});
    EXPECT_NEAR(losses.front(), std::log(512.0), 0.3);
    EXPECT_LT(losses.back(), 0.75 * losses.front());
}
TEST(Training, LossFallsWithMuon) {
    Folder f;
    auto losses = train_here(f / "run", {"steps=40", "optimizer.kind=muon", "optimizer.lr=5e-3"});
    EXPECT_LT(losses.back(), 0.75 * losses.front());
}
TEST(Training, Bf16FollowsF32) {
    Folder f;
    auto full = train_here(f / "a", {"steps=30", "optimizer.lr=3e-3"});
    auto half = train_here(f / "b", {"steps=30", "optimizer.lr=3e-3", "dtype=bf16"});
    EXPECT_NEAR(half.back(), full.back(), 0.05 * full.back());
    EXPECT_NE(half.back(), full.back());
}

TEST(Training, RecomputeChangesNoBit) {
    for (const char* dtype : {"dtype=f32", "dtype=bf16"}) {
        Folder f;
        std::vector<std::string> more{"steps=4", "model.num_hidden_layers=3", dtype};
        auto run = [&](const char* name, const char* recompute) {
            auto words = more;
            words.push_back(std::string("recompute=") + recompute);
            train_here(f / name, words);
            return weights_sha(f / name, 4);
        };
        std::string none = run("none", "none");
        EXPECT_EQ(run("full", "full"), none);
        EXPECT_EQ(run("every", "every:2"), none);
    }
}

TEST(Training, ThreadsChangeNoBit) {
    Folder f;
    int before = threads();
    auto run = [&](const char* name, int n) {
        set_threads(n);
        train_here(f / name, {"steps=4", "optimizer.kind=muon"});
        return weights_sha(f / name, 4);
    };
    std::string one = run("one", 1), two = run("two", 2), three = run("three", 3);
    set_threads(before);
    EXPECT_EQ(one, two);
    EXPECT_EQ(one, three);
}

TEST(Training, SeedDecides) {
    Folder f;
    auto sha = [&](const char* name, const char* seed) {
        train_here(f / name, {"steps=2", seed});
        return weights_sha(f / name, 2);
    };
    EXPECT_EQ(sha("a", "seed=1"), sha("b", "seed=1"));
    EXPECT_NE(sha("c", "seed=2"), sha("d", "seed=1"));
}

TEST(Training, AccumulationIsOneBatch) {
    Folder f;
    auto whole = train_here(f / "a", {"steps=3", "batch.rows=8", "batch.accumulation=1"});
    auto parts = train_here(f / "b", {"steps=3", "batch.rows=1", "batch.accumulation=8"});
    for (size_t i = 0; i < whole.size(); i++) EXPECT_NEAR(parts[i], whole[i], 1e-6 * whole[i]) << i;
}

// The gradient itself, row by row against all at once, where rows have different numbers of valid tokens.
TEST(Training, AccumulationDividesOnceByAllValidTokens) {
    Folder f;
    TrainConfig c = read_config(TINY, tiny_words(f / "run"));
    TrainingData d = prepare_text(c);
    auto model = model_of(c, d.tokenizer.get());
    Store store;
    model->allocate(store, Dtype::f32, true);
    model->initialise(1);
    int64_t rows = 8, most = d.train->max_sequences_per_row();
    TokenBatch all = d.train->batch(0, rows);
    for (int32_t i = 0; i < 40; i++) all.labels[size_t(i)] = -1; // the first row learns nothing
    double valid = 0;
    for (int32_t label : all.labels) valid += label >= 0;
    StepProgram whole(*model, rows * c.row_length, rows * most), part(*model, c.row_length, most);
    whole.run(all, 1 / valid);
    std::vector<std::vector<float>> expected;
    for (auto& [info, w] : model->weights()) {
        const float* g = host<float>(gradient_of(w));
        expected.emplace_back(g, g + w.shape().numel());
    }
    for (int64_t r = 0; r < rows; r++) {
        TokenBatch b = d.train->batch(r, 1);
        for (int64_t i = 0; i < c.row_length; i++)
            b.labels[size_t(i)] = all.labels[size_t(r * c.row_length + i)];
        part.run(b, 1 / valid, r == 0);
    }
    size_t k = 0;
    for (auto& [info, w] : model->weights()) {
        const float* g = host<float>(gradient_of(w));
        double error = 0, norm = 0;
        for (size_t i = 0; i < expected[k].size(); i++)
            error += std::pow(double(g[i]) - expected[k][i], 2), norm += std::pow(double(expected[k][i]), 2);
        EXPECT_LE(std::sqrt(error), 1e-6 * std::sqrt(norm)) << info.name;
        EXPECT_GT(norm, 0) << info.name;
        k++;
    }
}

TEST(Training, PlannedCostAndMemoryAreWhatHappens) {
    Folder f;
    for (const char* recompute : {"recompute=none", "recompute=full"}) {
        TrainConfig c = read_config(TINY, tiny_words(f / "run", {recompute}));
        TrainingData d = prepare_text(c);
        auto model = model_of(c, d.tokenizer.get());
        Store store;
        model->allocate(store, Dtype::f32, true);
        model->initialise(1);
        StepProgram step(*model, c.rows * c.row_length, c.rows * d.train->max_sequences_per_row());
        EXPECT_EQ(step.program().held_bytes(), 0);
        Cost measured;
        step.run(d.train->batch(0, c.rows), 1, true, {.measured = &measured});
        EXPECT_EQ(measured, step.program().cost());
        EXPECT_EQ(step.program().held_bytes(), step.program().planned_bytes());
    }
}

TEST(Training, StopsAtNaNAndNamesStepAndTensor) {
    Folder f;
    TrainConfig c = read_config(TINY, tiny_words(f / "run", {"optimizer.lr=1e30", "optimizer.clip=0"}));
    Trainer t(c, prepare_text(c));
    std::string error = error_of([&] { t.run(); });
    EXPECT_NE(error.find("is not finite"), std::string::npos) << error;
    EXPECT_NE(error.find("step "), std::string::npos);
    EXPECT_NE(error.find("first NaN or infinity: "), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
}
TEST(Training, NaNWeightIsNamed) {
    Folder f;
    TrainConfig c = read_config(TINY, tiny_words(f / "run"));
    Trainer t(c, prepare_text(c));
    for (auto& [info, w] : t.model().weights())
        if (info.name == "model.layers.0.mlp.up_proj.weight") host<float>(w)[5] = NAN;
    std::string error = error_of([&] { t.run(); });
    EXPECT_NE(error.find("weight model.layers.0.mlp.up_proj.weight"), std::string::npos) << error;
}

TEST(Training, ValidationCountsBytes) {
    Folder f;
    TrainConfig c = read_config(TINY, tiny_words(f / "run", {"data.val_fraction=0.2"}));
    Trainer t(c, prepare_text(c));
    Validation v = t.validate();
    EXPECT_GT(v.tokens, 100);
    // Untrained: log2(512) bits a token; tokens of this text stand for 1 to 8 bytes.
    EXPECT_NEAR(v.loss, std::log(512.0), 0.3);
    EXPECT_GT(v.bits_per_byte, 9.0 / 8);
    EXPECT_LT(v.bits_per_byte, 9.5);
}

TEST(Training, VocabularyOfAnotherTokenizer) {
    Folder f;
    TrainConfig c = read_config(TINY, tiny_words(f / "a", {"data.cache=" + f / "cache"}));
    prepare_text(c); // shards by a tokenizer of 512 ids
    TrainConfig other =
        read_config(TINY, tiny_words(f / "b", {"data.cache=" + f / "other", "tokenizer.vocab=400"}));
    prepare_text(other);
    TrainConfig mixed = c;
    mixed.data_path.clear(), mixed.tokenizer_path = f / "other/tokenizer";
    std::string error = error_of([&] { prepare_text(mixed); });
    EXPECT_NE(error.find("tokenizer"), std::string::npos) << error;
    TrainConfig small = read_config(TINY, tiny_words(f / "c", {"model.vocab_size=300"}));
    error = error_of([&] { Trainer(small, prepare_text(small)); });
    EXPECT_NE(error.find("vocab_size is 300"), std::string::npos) << error;
}

} // namespace
