// bench_tokenizer --input FILES [--model PATH] [--vocab-size N]: training and encoding speed on documents in
// memory, and the sha256 of all ids (int32, document after document), so that others can be compared with.
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "data/text/documents.h"
#include "data/tokenizer/train.h"
#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/clock.h"
#include "engine/base/parallel.h"
#include "engine/io/file.h"

using namespace nvl;

static double cpu_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; } // of all threads

int main(int argc, char** argv) {
    return run_main("bench_tokenizer", [&] {
        Args args("bench_tokenizer", "Training and encoding speed of the tokenizer.");
        auto& input = args.list("input", "files (.txt, .jsonl) and folders of them");
        auto& model = args.option("model", "", "tokenizer to encode with; without it, the one trained here");
        auto& size = args.option("vocab-size", 32768, "size of the vocabulary trained here");
        auto& pattern = args.option("pattern", "gpt4-2", "how text is split");
        auto& rounds = args.option("rounds", 3, "the best of so many");
        auto& json = args.flag("json", "print one JSON object");
        args.common();
        if (!args.parse(argc, argv)) return 0;
        check(!input.empty(), "expected --input with files or folders");
        std::vector<std::string> texts;
        for (auto& d : read_documents(input))
            if (!d.conversation) texts.push_back(d.text);
        std::vector<std::string_view> views(texts.begin(), texts.end());
        double bytes = 0, count = 0, merge = 0, cold = 0, best = 0, train_cpu = 0, encode_cpu = 0;
        for (auto& t : texts) bytes += double(t.size());

        std::unique_ptr<Tokenizer> tokenizer;
        if (model.empty()) {
            TrainOptions options;
            options.vocabulary_size = int(size), options.pattern = pattern;
            for (int64_t i = 0; i < rounds; i++) {
                double start = seconds_now(), cpu = cpu_seconds();
                BpeTrainer trainer(options);
                trainer.add(views);
                double counted = seconds_now();
                tokenizer = std::make_unique<Tokenizer>(trainer.train());
                double done = seconds_now();
                cpu = cpu_seconds() - cpu;
                if (!i || cpu < train_cpu) train_cpu = cpu;
                if (!i || done - start < count + merge) count = counted - start, merge = done - counted;
            }
        } else {
            tokenizer = std::make_unique<Tokenizer>(load_tokenizer(model));
        }
        std::vector<int> all;
        for (int64_t i = 0; i < rounds; i++) {
            double start = seconds_now(), cpu = cpu_seconds();
            auto ids = tokenizer->encode_batch(views);
            double took = seconds_now() - start;
            cpu = cpu_seconds() - cpu;
            if (!i || cpu < encode_cpu) encode_cpu = cpu;
            if (!i) cold = took;
            if (!i || took < best) best = took;
            all.clear();
            for (auto& v : ids) all.insert(all.end(), v.begin(), v.end());
        }
        nlohmann::ordered_json report = {{"bytes", bytes},
                                         {"documents", texts.size()},
                                         {"threads", threads()},
                                         {"train_seconds", count + merge},
                                         {"train_cpu_seconds", train_cpu},
                                         {"count_seconds", count},
                                         {"merge_seconds", merge},
                                         {"encode_first_seconds", cold},
                                         {"encode_seconds", best},
                                         {"encode_cpu_seconds", encode_cpu},
                                         {"encode_mb_per_second", bytes / best / 1e6},
                                         {"ids", all.size()},
                                         {"sha256", sha256(std::as_bytes(std::span(all)))}};
        if (json)
            std::printf("%s\n", report.dump().c_str());
        else
            for (auto& [key, value] : report.items())
                std::printf("%-22s %s\n", key.c_str(), value.dump().c_str());
        return 0;
    });
}
