// bench_decode: generation of a model, one token at a time and in batches, against the memory bandwidth.
//
// A step's time is the best of many: on a shared machine the best is the one that nobody disturbed.
#include <cstdio>
#include <map>

#include "bench/floors.h"
#include "engine/base/cli.h"
#include "engine/base/rng.h"
#include "infer/engine.h"
#include "infer/load.h"
#include "infer/read_bandwidth.h"

using namespace nvl;

namespace {

struct Times {
    double prefill = 1e9, decode = 1e9;    // seconds of the best step
    std::map<std::string, double> kernels; // in it
};

Times measure(Engine& engine, int64_t sequences, int64_t context, int64_t steps) {
    std::vector<int32_t> prompt;
    for (int64_t i = 0; i < context; i++)
        prompt.push_back(int32_t(Random(1).below(uint64_t(i), uint64_t(engine.model().dims.V))));
    Times t;
    auto none = [](size_t, int64_t, std::span<const float>) {};
    std::vector<int> open;
    for (int64_t s = 0; s < sequences; s++) {
        open.push_back(engine.open());
        Engine::Feed feed{open.back(), prompt};
        double begin = seconds_now();
        engine.feed({&feed, 1}, none);
        t.prefill = std::min(t.prefill, seconds_now() - begin);
    }
    for (int64_t i = 0; i < steps; i++) {
        std::vector<Engine::Feed> feeds;
        for (int s : open) feeds.push_back({s, std::span(prompt).subspan(size_t(i % context), 1)});
        std::map<std::string, double> kernels;
        engine.seconds = &kernels;
        double begin = seconds_now();
        engine.feed(feeds, none);
        double seconds = seconds_now() - begin;
        if (seconds < t.decode) t.decode = seconds, t.kernels = kernels;
        engine.seconds = nullptr;
        for (int s : open) engine.truncate(s, context);
    }
    for (int s : open) engine.close(s);
    return t;
}

int run(int argc, char** argv) {
    Args args("bench_decode", "Prefill and decode of a model against the memory bandwidth.");
    auto& path = args.option("model", "models/cache/SmolLM2-135M-Instruct.Q4_1.gguf", "folder or .gguf file");
    auto& context = args.option("context", 128, "tokens in the cache");
    auto& steps = args.option("steps", 30, "decode steps; the best counts");
    auto& sequences = args.option("sequences", 1, "decoded together");
    auto& kernels = args.flag("kernels", "also the time of each kernel in the best step");
    args.common("bf16");
    if (!args.parse(argc, argv)) return 0;
    auto loaded = load_for_inference(path, dtype_from(args.dtype()), device_from(args.device()));
    double bandwidth = read_bandwidth();
    std::printf("%s %s, %ld sequences, context %ld, %d threads; memory reads %.1f GB/s\n", path.c_str(),
                args.dtype().c_str(), sequences, context, threads(), bandwidth / 1e9);
    for (bool pack : {false, true}) {
        Engine engine(*loaded->model, {.dtype = loaded->dtype,
                                       .sequences = sequences,
                                       .tokens_per_sequence = context + 1,
                                       .pack = pack,
                                       .step_tokens = std::max(context, sequences)});
        Times t = measure(engine, sequences, context, steps);
        double bytes = engine.decode_bytes(context);
        std::printf(
            "%-9s prefill %7.1f tokens/s   decode %7.1f tokens/s   %.2f ms a step   %5.1f GB/s = %.0f %% "
            "of memory\n",
            pack ? "packed" : "plain", double(context) / t.prefill, double(sequences) / t.decode,
            t.decode * 1e3, bytes / t.decode / 1e9, 100 * bytes / t.decode / bandwidth);
        if (kernels)
            for (auto& [name, seconds] : t.kernels)
                std::printf("  %-20s %7.3f ms\n", name.c_str(), seconds * 1e3);
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_main("bench_decode", [&] { return run(argc, argv); });
}
