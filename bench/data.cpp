// bench_data: what preparing and loading a corpus costs, and how full the rows are.
#include <cstdio>

#include "data/chat/tasks.h"
#include "data/chat/with_tokenizer.h"
#include "data/pack/dataset.h"
#include "data/pack/prepare.h"
#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/clock.h"
#include "engine/base/text.h"

using namespace nvl;

static int run(int argc, char** argv) {
    Args args("bench_data", "Tokenizes a corpus, packs it and makes every batch of an epoch.");
    auto& corpus = args.list("corpus", "files and folders of text");
    auto& model = args.option("tokenizer", "", "folder of the tokenizer");
    auto& folder = args.option("output", "out/bench_data", "where the shards go");
    auto& rows = args.list("row", "row lengths; default 256 512 1024 2048");
    args.common();
    if (!args.parse(argc, argv)) return 0;
    check(!corpus.empty() && !model.empty(), "expected --corpus and --tokenizer");
    if (rows.empty()) rows = {"256", "512", "1024", "2048"};
    Tokenizer tokenizer = load_tokenizer(model);
    ChatTemplate chat(chat_tokenizer(tokenizer));
    PrepareOptions options{.shards = {.begin = chat.bos}, .chat = &chat};

    double start = seconds_now();
    PreparedCorpus prepared =
        prepare_corpus(corpus, folder, encoder(tokenizer), tokenizer_id(tokenizer), options);
    double took = seconds_now() - start;
    std::printf("prepare   %s, %s/s\n          %s\n", human_time(took).c_str(),
                human(double(prepared.train.bytes + prepared.validation.bytes) / took, "B").c_str(),
                prepared.report().c_str());
    for (const std::string& length : rows) {
        start = seconds_now();
        PackedDataset data(prepared.train.shards, tokenizer_id(tokenizer), std::stol(length), 1);
        double opened = seconds_now();
        int64_t sum = 0, count = std::max<int64_t>(1, 16384 / data.row_length());
        for (int64_t r = 0; r + count <= data.rows(); r += count) sum += data.batch(r, count).valid;
        double batches = seconds_now() - opened;
        std::printf(
            "pack      %s; opened in %.0f ms, batches %s tokens/s (%s learned), up to %ld sequences a row\n",
            data.packed().report().c_str(), 1e3 * (opened - start),
            human(double(data.rows() * data.row_length()) / batches, "").c_str(), with_commas(sum).c_str(),
            long(data.max_sequences_per_row()));
    }
    return 0;
}

int main(int argc, char** argv) {
    return run_main("bench_data", [&] { return run(argc, argv); });
}
