// The commands as a shell sees them: results in JSON, and one clear line and status 1 for every mistake.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "engine/io/file.h"
#include "engine/io/gguf.h"
#include "models/checkpoint.h"
#include "tests/unit/files.h"
#include "tests/unit/tokenizer_help.h"

using namespace nvl;
using namespace nvl::test;

namespace {

struct Result {
    int status;
    std::string out, error;
};
// `input`: what the command reads from stdin.
Result shell(const std::string& command, const std::string& input = "") {
    TemporaryFolder t;
    write_file(t / "in", input);
    std::string line =
        std::string(NVL_BIN) + "/" + command + " <" + (t / "in") + " >" + (t / "out") + " 2>" + (t / "error");
    int status = std::system(line.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(t / "out"), read_file(t / "error")};
}
void expect_error(const std::string& command, const std::string& words) {
    Result r = shell(command);
    EXPECT_EQ(r.status, 1) << command;
    EXPECT_EQ(r.out, "") << command;
    EXPECT_NE(r.error.find(words), std::string::npos) << command << "\n" << r.error;
    EXPECT_EQ(std::count(r.error.begin(), r.error.end(), '\n'), 1) << r.error;
}

// A folder with a tiny model and a tokenizer of ours.
struct Folder {
    TemporaryFolder folder;
    std::string path = folder / "model";
    explicit Folder(int64_t vocabulary = 300, int64_t context = 64) {
        Tokenizer t = train_on(prose(), 300);
        Json c{{"model_type", "gpt2"}, {"n_embd", 32},           {"n_head", 2},
               {"n_layer", 1},         {"n_positions", context}, {"vocab_size", vocabulary}};
        auto model = make_model(c);
        Store store;
        model->allocate(store, Dtype::f32, false);
        model->initialise(1);
        save_model(*model, path);
        t.save(path);
    }
};
std::string tail_cut(const std::string& content, double share) {
    return content.substr(0, size_t(double(content.size()) * share));
}

TEST(Tools, GenerateGivesItsJson) {
    Folder f;
    std::string command = "generate --model " + f.path +
                          " --prompt 'The quick' --max-tokens 9 --temperature 1 "
                          "--seed 3 --json";
    Result r = shell(command);
    ASSERT_EQ(r.status, 0) << r.error;
    Json j = Json::parse(r.out);
    EXPECT_EQ(Json(load_tokenizer(f.path).encode("The quick", false, true)), j["prompt_ids"]);
    EXPECT_LE(j["ids"].size(), 9u);
    EXPECT_EQ(j["ids"].size(), j["logprobs"].size());
    for (double l : j["logprobs"]) EXPECT_LT(l, 0);
    EXPECT_TRUE(j["text"].is_string());
    EXPECT_GT(j["prefill_tokens_per_second"].get<double>(), 0);
    EXPECT_GT(j["decode_tokens_per_second"].get<double>(), 0);
    EXPECT_EQ(Json::parse(shell(command).out)["ids"], j["ids"]);
    EXPECT_NE(Json::parse(shell(command + " --seed 4").out)["ids"], j["ids"]);
    std::string ids; // the same prompt as ids
    for (int id : j["prompt_ids"]) ids += (ids.empty() ? "" : ",") + std::to_string(id);
    EXPECT_EQ(Json::parse(shell("generate --model " + f.path + " --prompt-ids " + ids +
                                " --max-tokens 9 --temperature 1 --seed 3 --json")
                              .out)["ids"],
              j["ids"]);
}
TEST(Tools, GenerateNeedsNoTokenizerForIds) {
    std::string model = std::string(NVL_SOURCE) + "/tests/golden/gpt2";
    Json j =
        Json::parse(shell("generate --model " + model + " --prompt-ids 1,2,3 --max-tokens 4 --json").out);
    EXPECT_EQ(j["ids"].size(), 4u);
    EXPECT_EQ(j["text"], "");
    expect_error("generate --model " + model + " --prompt hi", "tokenizer.json: not found");
}
TEST(Tools, WrongInputIsOneLineAndStatusOne) {
    Folder f;
    std::string g = "generate --max-tokens 3 --model ";
    expect_error("generate --prompt x", "--model");
    expect_error(g + "/nowhere --prompt x", "/nowhere: no such model");
    expect_error(g + f.folder.path + " --prompt x", "config.json");
    expect_error(g + "/nowhere.gguf --prompt x", "/nowhere.gguf");
    expect_error(g + f.path, "one of --prompt and --prompt-ids");
    expect_error(g + f.path + " --prompt-ids 1,2x", "--prompt-ids");
    expect_error(g + f.path + " --prompt-ids 1,300", "token id 300");
    expect_error(g + f.path + " --prompt-ids -1", "token id -1");
    expect_error(g + f.path + " --prompt " + std::string(200, 'x'), "201 tokens, the context holds 64");
    expect_error(g + f.path + " --prompt x --temperature -1", "temperature");
    expect_error(g + f.path + " --prompt x --top-p 1.5", "top_p");
    expect_error(g + f.path + " --prompt x --tmperature 1", "did you mean --temperature");
    expect_error(g + f.path + " --prompt x --device cuda", "cuda");
}
TEST(Tools, DamagedModels) {
    Folder f;
    std::string weights = f.path + "/model.safetensors", good = read_file(weights);
    std::string g = "generate --prompt x --max-tokens 3 --model " + f.path;
    for (double share : {0.0, 0.001, 0.5, 0.999}) {
        write_file(weights, tail_cut(good, share));
        expect_error(g, "model.safetensors");
    }
    std::string bad = good;
    bad[9] = '}'; // in the header
    write_file(weights, bad);
    expect_error(g, "model.safetensors");
    ::unlink(weights.c_str());
    expect_error(g, f.path);
    write_file(weights, good);
    EXPECT_EQ(shell(g).status, 0);
    write_file(f.path + "/config.json", "{\"model_type\": \"gpt2\"");
    expect_error(g, "config.json");
    write_file(f.path + "/config.json", "{\"model_type\": \"gpt5\"}");
    expect_error(g, "gpt5");
}
TEST(Tools, VocabularyAndModelMustBelongTogether) {
    Folder small(280), large(3000), padded(320);
    std::string tail = " --prompt x --max-tokens 2";
    expect_error("generate --model " + small.path + tail, "the tokenizer has 300 ids, the model 280");
    expect_error("generate --model " + large.path + tail, "the tokenizer has 300 ids, the model 3000");
    EXPECT_EQ(shell("generate --model " + padded.path + tail).status, 0);
}
TEST(Tools, TruncatedGguf) {
    std::string path = std::string(NVL_SOURCE) + "/models/cache/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!exists(path)) GTEST_SKIP() << "no model in models/cache; tools/get_smollm2.sh obtains it";
    TemporaryFolder t;
    std::string cut = t / "cut.gguf", head(4 << 20, '\0'); // all that stands before the tensors, and more
    std::ifstream(path, std::ios::binary).read(head.data(), std::streamsize(head.size()));
    for (size_t bytes : {size_t(0), size_t(10), size_t(100000), head.size()}) {
        write_file(cut, head.substr(0, bytes));
        expect_error("generate --prompt x --max-tokens 2 --model " + cut, "cut.gguf");
    }
    std::filesystem::resize_file(cut, std::filesystem::file_size(path) - 1); // zeros, but one byte short
    expect_error("generate --prompt x --max-tokens 2 --model " + cut, "cut.gguf");
}
TEST(Tools, EvaluatePerplexity) {
    Folder f;
    write_file(f.folder / "text", prose());
    std::string e = "evaluate perplexity --context 32 --model " + f.path + " --text ";
    Result r = shell(e + (f.folder / "text") + " --json");
    ASSERT_EQ(r.status, 0) << r.error;
    Json j = Json::parse(r.out);
    EXPECT_EQ(j["tokens"].get<int64_t>(), j["chunks"].get<int64_t>() * 15);
    EXPECT_EQ(j["chunks"].get<int64_t>(), j["tokens_total"].get<int64_t>() / 32);
    EXPECT_NEAR(j["perplexity"].get<double>(), 300, 60); // of a model that knows nothing
    EXPECT_GT(j["bits_per_byte"].get<double>(), 1);
    expect_error(e + "/nowhere", "/nowhere");
    write_file(f.folder / "short", "x");
    expect_error(e + (f.folder / "short"), "one chunk needs 32");
    expect_error(e + (f.folder / "text") + " --context 65", "context of 65");
    expect_error("evaluate perplexty", "expected one of");
}
TEST(Tools, ChatReadsAPipe) {
    Folder f;
    Result r = shell("chat --max-tokens 5 --model " + f.path,
                     "Hello\n\n/temperature 0\n/temperature x\n/clear\n/quti\nAgain\n/quit\nnever read\n");
    EXPECT_EQ(r.status, 0) << r.error;
    for (const char* words : {"temperature 0", "expects a number", "forgotten", "did you mean /quit?"})
        EXPECT_NE(r.out.find(words), std::string::npos) << words << "\n" << r.out;
    EXPECT_EQ(shell("chat --max-tokens 5 --model " + f.path, "one\ntwo").status, 0); // ends without /quit
    Result long_line = shell("chat --max-tokens 5 --model " + f.path, std::string(500, 'x') + "\nshort\n");
    EXPECT_EQ(long_line.status, 0);
    EXPECT_NE(long_line.out.find("too long"), std::string::npos);
    expect_error("chat --model " + std::string(NVL_SOURCE) + "/tests/golden/gpt2", "tokenizer.json");
}
// Greedy and untrained, this model repeats itself until something stops it: 200,000 tokens are minutes.
TEST(Tools, AnInterruptStopsTheAnswerAndNotTheChat) {
    Folder f(300, 200000);
    int to[2], from[2];
    ASSERT_EQ(pipe(to) | pipe(from), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(to[0], 0), dup2(from[1], 1);
        for (int fd : {to[0], to[1], from[0], from[1]}) close(fd);
        execl((std::string(NVL_BIN) + "/chat").c_str(), "chat", "--model", f.path.c_str(), "--temperature",
              "0", "--max-tokens", "200000", "--context", "200000", nullptr);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    ASSERT_EQ(write(to[1], "Hello\n", 6), 6);
    std::string out(1, ' ');
    ASSERT_EQ(read(from[0], out.data(), 1), 1); // it speaks
    kill(child, SIGINT);
    ASSERT_EQ(write(to[1], "/temperature 3\n", 15), 15);
    close(to[1]);
    char buffer[4096];
    for (ssize_t n; (n = read(from[0], buffer, sizeof buffer)) > 0;) out.append(buffer, size_t(n));
    close(from[0]);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT_NE(out.find("(stopped)"), out.npos);
    EXPECT_NE(out.find("temperature 3"), out.npos);
}

} // namespace
