// Checkpoints: whole or absent, few, and a run that continues one has the bits of a run that was left alone.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <random>
#include <thread>

#include "models/checkpoint.h"
#include "tests/train/runs.h"

using namespace nvl;
using namespace nvl::testing;
namespace fs = std::filesystem;

namespace {

std::vector<int64_t> steps_in_metrics(const std::string& out) {
    std::vector<int64_t> steps;
    std::string text = read_file(out + "/metrics.jsonl");
    for (size_t at = 0; at < text.size();) {
        size_t end = text.find('\n', at);
        steps.push_back(Json::parse(text.substr(at, end - at))["step"]);
        at = end + 1;
    }
    return steps;
}
std::vector<int64_t> count_to(int64_t n) {
    std::vector<int64_t> v;
    for (int64_t i = 1; i <= n; i++) v.push_back(i);
    return v;
}

TEST(Resume, InOneProcessIsBitwise) {
    for (const char* kind : {"optimizer.kind=adamw", "optimizer.kind=muon"})
        for (const char* dtype : {"dtype=f32", "dtype=bf16"}) {
            Folder f;
            std::vector<std::string> more{"schedule.kind=constant", kind, dtype};
            auto words = [&](const char* extra) {
                auto w = more;
                w.push_back(extra);
                return w;
            };
            train_here(f / "whole", more);
            train_here(f / "parts", words("steps=5"));
            auto rest = more;
            rest.push_back("resume=true");
            train_here(f / "parts", rest);
            EXPECT_EQ(weights_sha(f / "parts", 12), weights_sha(f / "whole", 12)) << kind << " " << dtype;
            EXPECT_EQ(steps_in_metrics(f / "parts"), count_to(12));
        }
}

// SIGKILL at random moments, again and again, until the run is through.
TEST(Resume, AfterSigkillIsBitwise) {
    Folder f;
    auto words = [&](const std::string& out, std::vector<std::string> more = {}) {
        std::vector<std::string> all{"steps=40", "save.every=1", "eval.every=3", "resume=true",
                                     "optimizer.kind=muon"};
        all.insert(all.end(), more.begin(), more.end());
        return with_config(tiny_words(out, all));
    };
    using clock = std::chrono::steady_clock;
    auto start_time = clock::now();
    ASSERT_EQ(wait_for(start("pretrain", words(f / "whole"), f / "log")), 0) << read_file(f / "log");
    auto whole_run = clock::now() - start_time; // on this machine, under its load
    std::mt19937 random(std::random_device{}());
    int kills = 0, status = -SIGKILL;
    for (int round = 0; round < 200 && status == -SIGKILL; round++) {
        pid_t child = start("pretrain", words(f / "killed"), f / "log");
        auto end = clock::now() + whole_run * int(10 + random() % 50) / 100;
        int raw = 0;
        while (waitpid(child, &raw, WNOHANG) == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            if (round < 8 && clock::now() > end) kill(child, SIGKILL);
        }
        status = WIFEXITED(raw) ? WEXITSTATUS(raw) : -WTERMSIG(raw);
        kills += status == -SIGKILL;
    }
    EXPECT_EQ(status, 0) << read_file(f / "log");
    EXPECT_GE(kills, 1);
    EXPECT_EQ(weights_sha(f / "killed", 40), weights_sha(f / "whole", 40)) << kills << " kills";
    EXPECT_EQ(steps_in_metrics(f / "killed"), count_to(40));
    for (auto& entry : fs::directory_iterator(f / "killed"))
        EXPECT_NE(entry.path().filename().string()[0], '.') << entry.path() << " was left behind";
}

TEST(Resume, CtrlCSavesAndStops) {
    Folder f;
    auto words = with_config(tiny_words(f / "run", {"steps=100000", "save.every=0"}));
    pid_t child = start("pretrain", words, f / "log");
    for (int i = 0;
         i < 6000 && (!exists(f / "run/metrics.jsonl") || read_file(f / "run/metrics.jsonl").size() < 300);
         i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, SIGINT);
    EXPECT_EQ(wait_for(child), 0) << read_file(f / "log");
    auto checkpoint = newest_checkpoint(f / "run");
    ASSERT_TRUE(checkpoint) << read_file(f / "log");
    EXPECT_EQ(size_t(read_trainer_state(*checkpoint).step), steps_in_metrics(f / "run").size());
}

TEST(Checkpoints, AreHuggingFaceFolders) {
    Folder f;
    train_here(f / "run", {"dtype=bf16"});
    std::string folder = checkpoint_folder(f / "run", 12);
    Json config = Json::parse(read_file(folder + "/config.json"));
    EXPECT_EQ(config["model_type"], "qwen3");
    EXPECT_EQ(config["vocab_size"], 512);
    Checkpoint file(folder);
    EXPECT_EQ(file.at("model.embed_tokens.weight").type, StoredType::f32);
    EXPECT_EQ(load_tokenizer(folder).size(), 512);
    Store store;
    EXPECT_NO_THROW(load_model(folder, store, Dtype::f32, false));
}

TEST(Checkpoints, OnlyTheLastAreKept) {
    Folder f;
    train_here(f / "run", {"save.every=2", "save.keep_last=3"});
    std::vector<std::string> names;
    for (auto& entry : fs::directory_iterator(f / "run"))
        if (entry.path().filename().string().rfind("step-", 0) == 0) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (std::vector<std::string>{"step-10", "step-12", "step-8"}));
}

TEST(Checkpoints, AnEarlierRunIsNotOverwritten) {
    Folder f;
    train_here(f / "run");
    std::string before = weights_sha(f / "run", 12);
    std::string error = error_of([&] { train_here(f / "run"); });
    EXPECT_NE(error.find("resume=true"), std::string::npos) << error;
    EXPECT_EQ(weights_sha(f / "run", 12), before);
}

TEST(Checkpoints, AnotherConfigIsRefused) {
    Folder f;
    train_here(f / "run", {"steps=4"});
    struct Row {
        const char *word, *expected;
    };
    for (Row r : {Row{"optimizer.lr=7e-4", "optimizer.lr was 0.003"}, Row{"batch.rows=2", "batch.rows was 4"},
                  Row{"seed=5", "seed was 42"}, Row{"dtype=bf16", "dtype was"},
                  Row{"optimizer.kind=muon", "optimizer.kind"}, Row{"model.hidden_size=32", "model"}}) {
        std::string error = error_of([&] { train_here(f / "run", {"resume=true", r.word}); });
        EXPECT_NE(error.find(r.expected), std::string::npos) << r.word << ": " << error;
    }
}

TEST(Checkpoints, DamageIsOneLine) {
    Folder f;
    train_here(f / "run", {"steps=4"});
    std::string folder = checkpoint_folder(f / "run", 4);
    for (const char* name : {"/trainer.json", "/model.safetensors", "/optimizer.safetensors"}) {
        std::string good = read_file(folder + name);
        for (std::string bad : {good.substr(0, good.size() / 2), std::string()}) {
            write_file(folder + name, bad);
            Outcome o = command("pretrain", with_config(tiny_words(f / "run", {"resume=true"})));
            EXPECT_EQ(o.status, 1) << name << o.output;
            EXPECT_NE(o.output.find("error: "), std::string::npos) << o.output;
        }
        write_file(folder + name, good);
    }
    EXPECT_EQ(command("pretrain", with_config(tiny_words(f / "run", {"resume=true"}))).status, 0);
}

TEST(Checkpoints, AFullDiskKeepsTheEarlierOne) {
    Folder f;
    train_here(f / "run", {"steps=4"});
    std::string before = weights_sha(f / "run", 4);
    auto words = with_config(tiny_words(f / "run", {"resume=true", "save.every=2"}));
    EXPECT_EQ(wait_for(start("pretrain", words, f / "log", 100'000)), 1);
    std::string log = read_file(f / "log");
    EXPECT_NE(log.find("model.safetensors: cannot write: "), std::string::npos) << log;
    EXPECT_EQ(log.find("error: "), log.rfind("error: "));
    EXPECT_EQ(newest_checkpoint(f / "run"), checkpoint_folder(f / "run", 4));
    EXPECT_EQ(weights_sha(f / "run", 4), before);
    EXPECT_EQ(wait_for(start("pretrain", words, f / "log")), 0) << read_file(f / "log");
    EXPECT_EQ(steps_in_metrics(f / "run"), count_to(12));
}

TEST(Checkpoints, UnwritableFolder) {
    Folder f;
    write_file(f / "file", "not a folder");
    Outcome o = command("pretrain", with_config(tiny_words(f / "file/run")));
    EXPECT_EQ(o.status, 1) << o.output;
    EXPECT_NE(o.output.find("pretrain: error: "), std::string::npos) << o.output;
    EXPECT_EQ(std::count(o.output.begin(), o.output.end(), '\n'), 1) << o.output;
}

TEST(Commands, MistakesExitWithOneLine) {
    for (auto& words : std::vector<std::vector<std::string>>{
             {}, {"nowhere.yaml"}, {TINY, "setps=3"}, {TINY, "mesh.tp=4"}}) {
        Outcome o = command("pretrain", words);
        EXPECT_EQ(o.status, 1) << o.output;
        EXPECT_EQ(std::count(o.output.begin(), o.output.end(), '\n'), 1) << o.output;
    }
    EXPECT_EQ(command("pretrain", {"--help"}).status, 0);
}

} // namespace
