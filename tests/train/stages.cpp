// The stages one after the other, small: pretraining, tuning on conversations, grading, the report.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/train/runs.h"
#include "train/report/report.h"
#include "train/tasks/chat_eval.h"

using namespace nvl;
using namespace nvl::testing;

namespace {

std::vector<std::string> sft_words(const Folder& f, std::vector<std::string> more = {}) {
    std::string source = NVL_SOURCE;
    std::vector<std::string> words{source + "/train/configs/speedrun_sft.yaml",
                                   "init_from=" + checkpoint_folder(f / "base", 12),
                                   "tokenizer.path=" + checkpoint_folder(f / "base", 12),
                                   "out_dir=" + f / "sft",
                                   "data.cache=" + f / "chat",
                                   "data.path=",
                                   "tasks.identity_path=" + source + "/data/chat/identity.jsonl",
                                   "tasks.words_path=" + source + "/train/configs/tiny.txt",
                                   "tasks.spelling=60",
                                   "tasks.letter_count=20",
                                   "tasks.arithmetic=200",
                                   "tasks.identity=60",
                                   "data.row_length=128",
                                   "batch.rows=4",
                                   "steps=30",
                                   "eval.every=15",
                                   "save.every=10"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

TEST(Stages, PretrainTuneGradeReport) {
    Folder f;
    Outcome o = command("pretrain", with_config(tiny_words(f / "base", {"eval.every=6", "sample.every=12"})));
    ASSERT_EQ(o.status, 0) << o.output;
    o = command("sft", sft_words(f));
    ASSERT_EQ(o.status, 0) << o.output;
    Json first, last, summary = Json::parse(read_file(f / "sft/summary.json"));
    std::string lines = read_file(f / "sft/metrics.jsonl");
    first = Json::parse(lines.substr(0, lines.find('\n')));
    EXPECT_LT(summary["loss"].get<double>(), 0.8 * first["loss"].get<double>());
    EXPECT_GT(summary["val_bpb"].get<double>(), 0);

    std::string source = NVL_SOURCE, tuned = summary["checkpoint"];
    o = command("evaluate", {"chat", "--model", tuned, "--words", source + "/train/configs/tiny.txt",
                             "--identity", source + "/data/chat/identity.jsonl", "--examples", "5", "--json",
                             "--output", f / "sft_chat.json", "--dtype", "f32"});
    ASSERT_EQ(o.status, 0) << o.output;
    Json scores = Json::parse(read_file(f / "sft_chat.json"));
    ASSERT_EQ(scores.size(), 4u);
    for (const Json& s : scores) {
        EXPECT_EQ(s["examples"], 5);
        EXPECT_GE(s["baseline"].get<double>(), 0);
        EXPECT_LE(s["right"].get<int>(), 5);
    }

    o = command("report", {"--run", f.path, "--output", f / "report"});
    ASSERT_EQ(o.status, 0) << o.output;
    std::string html = read_file(f / "report/index.html"), markdown = read_file(f / "report/report.md");
    for (const char* text :
         {"<svg", "Pretraining", "Tuning on conversations", "arithmetic", "prefers-color-scheme"})
        EXPECT_NE(html.find(text), std::string::npos) << text;
    EXPECT_EQ(html.find("http"), std::string::npos) << "self-contained: nothing is loaded from elsewhere";
    for (const char* text : {"# nanochat_vl", "| parameters |", "## It talks"})
        EXPECT_NE(markdown.find(text), std::string::npos) << text;
}

TEST(Stages, TuningResumesBitwise) {
    Folder f;
    ASSERT_EQ(command("pretrain", with_config(tiny_words(f / "base"))).status, 0);
    auto words = [&](const char* out, const char* steps) {
        return sft_words(
            f, {"out_dir=" + f / out, steps, "eval.every=0", "schedule.kind=constant", "resume=true"});
    };
    ASSERT_EQ(command("sft", words("whole", "steps=8")).status, 0);
    ASSERT_EQ(command("sft", words("parts", "steps=3")).status, 0);
    ASSERT_EQ(command("sft", words("parts", "steps=8")).status, 0);
    EXPECT_EQ(weights_sha(f / "parts", 8), weights_sha(f / "whole", 8));
}

TEST(Stages, MistakesAreOneLine) {
    Folder f;
    ASSERT_EQ(command("pretrain", with_config(tiny_words(f / "base"))).status, 0);
    for (auto& [word, text] : std::vector<std::pair<std::string, std::string>>{
             {"init_from=" + f / "nowhere", "nowhere"},
             {"tasks.identity_path=" + f / "none.jsonl", "none.jsonl"},
             {"data.path=" + std::string(NVL_SOURCE) + "/train/configs/tiny.txt",
              "expected a conversation"}}) {
        Outcome o = command("sft", sft_words(f, {word}));
        EXPECT_EQ(o.status, 1) << o.output;
        EXPECT_NE(o.output.find(text), std::string::npos) << o.output;
        EXPECT_EQ(std::count(o.output.begin(), o.output.end(), '\n'), 1) << o.output;
    }
    EXPECT_EQ(command("report", {"--run", f / "nothing"}).status, 1);
}

// A curve and a table without any run: escaping, and a range that is one value.
TEST(Report, EscapesAndDraws) {
    Report r;
    r.title = "a <b> & \"c\"";
    r.curves.push_back({"loss", "nats", {{1, 2}, {2, 2}}, {{2, 2}}});
    r.tables.push_back({"t|able", {"a", "b"}, {{{"x|y", "line\nbreak"}}}});
    r.talks.push_back({"task", "<script>", "answer", false});
    std::string html = to_html(r), markdown = to_markdown(r);
    EXPECT_EQ(html.find("<script>"), std::string::npos);
    EXPECT_NE(html.find("a &lt;b&gt; &amp; &quot;c&quot;"), std::string::npos);
    EXPECT_EQ(html.find("nan"), std::string::npos);
    EXPECT_NE(markdown.find("x\\|y"), std::string::npos);
}

} // namespace
