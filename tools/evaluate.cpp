// evaluate: what a model is worth, in numbers. One subcommand per measure, listed in `commands`.
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "engine/base/cli.h"
#include "engine/io/file.h"
#include "infer/load.h"
#include "infer/perplexity.h"
#include "train/tasks/chat_eval.h"

using namespace nvl;

namespace {

int evaluate_perplexity(int argc, char** argv) {
    Args args("evaluate perplexity", "How well a model predicts a text: perplexity and bits per byte.");
    auto& path = args.option("model", "", "Hugging Face folder or .gguf file");
    auto& text = args.option("text", "", "file to predict");
    auto& context = args.option("context", 512, "tokens of a chunk; the second half of each is scored");
    auto& chunks = args.option("chunks", 0, "score the first N chunks alone; 0: all");
    auto& json = args.flag("json", "one JSON object");
    args.common();
    if (!args.parse(argc, argv, 2)) return 0;
    check(!path.empty() && !text.empty(), "expected --model and --text; see --help");
    check(chunks >= 0, "--chunks expects 0 or more, found %ld", chunks);
    check(exists(text) && !is_directory(text), "%s: no such file", text.c_str());
    std::string content = read_file(text);
    auto loaded = load_for_inference(path, dtype_from(args.dtype()), device_from(args.device()));
    bool terminal = isatty(STDERR_FILENO);
    Perplexity p = perplexity(*loaded->model, loaded->need_tokenizer(), loaded->dtype, content, context,
                              chunks, [&](const Perplexity& so_far, int64_t all) {
                                  if (terminal)
                                      std::fprintf(stderr, "\rchunk %ld of %ld: %.4f ", so_far.chunks, all,
                                                   so_far.perplexity());
                              });
    if (terminal) std::fprintf(stderr, "\n");
    if (!json) {
        std::printf("perplexity     %.4f\nbits per byte  %.4f\ntokens         %ld scored of %ld, in %ld "
                    "chunks of %ld\n",
                    p.perplexity(), p.bits_per_byte(), p.scored, p.tokens, p.chunks, context);
        return 0;
    }
    Json out;
    out["perplexity"] = p.perplexity();
    out["bits_per_byte"] = p.bits_per_byte();
    out["tokens"] = p.scored;
    out["tokens_total"] = p.tokens;
    out["chunks"] = p.chunks;
    out["context"] = context;
    out["nll"] = p.nll / double(p.scored);
    std::printf("%s\n", out.dump().c_str());
    return 0;
}

struct Command {
    const char *name, *summary;
    int (*run)(int argc, char** argv); // argv[1] is the name
};
constexpr Command commands[] = {
    {"perplexity", "how well a model predicts a text", evaluate_perplexity},
    {"chat", "grades a tuned model on identity, spelling, counting and arithmetic", evaluate_chat},
};

int run(int argc, char** argv) {
    std::string name = argc > 1 ? argv[1] : "--help", known;
    for (const Command& c : commands) {
        if (name == c.name) return c.run(argc, argv);
        known += std::string(known.empty() ? "" : ", ") + c.name;
    }
    check(name == "--help" || name == "-h", "expected one of %s, found \"%s\"; see --help", known.c_str(),
          name.c_str());
    std::printf("evaluate MEASURE [options]      evaluate MEASURE --help lists them\n");
    for (const Command& c : commands) std::printf("  %-12s %s\n", c.name, c.summary);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_main("evaluate", [&] { return run(argc, argv); });
}
