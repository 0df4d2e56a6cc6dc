// A whole training step: forward, backward and AdamW on random tokens, as llm.c's loop does (no clipping).
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>

#include "bench/floors.h"
#include "engine/base/cli.h"
#include "engine/base/rng.h"
#include "engine/base/text.h"
#include "train/loop/optimizer.h"
#include "train/loop/step.h"

using namespace nvl;

namespace {

// The vocabulary of GPT-2 is padded to 50304, as llm.c and the usual PyTorch code do.
Json config_of(const std::string& name) {
    if (name == "gpt2-124m")
        return {{"model_type", "gpt2"}, {"n_embd", 768},       {"n_head", 12},
                {"n_layer", 12},        {"vocab_size", 50304}, {"n_positions", 1024}};
    if (name == "qwen3-small")
        return {{"model_type", "qwen3"},       {"hidden_size", 256},       {"num_hidden_layers", 6},
                {"num_attention_heads", 4},    {"num_key_value_heads", 2}, {"head_dim", 64},
                {"intermediate_size", 768},    {"vocab_size", 4096},       {"max_position_embeddings", 2048},
                {"tie_word_embeddings", true}, {"rms_norm_eps", 1e-6},     {"rope_theta", 10000.0}};
    fail("--model: expected gpt2-124m or qwen3-small, found \"%s\"", name.c_str());
}

TokenBatch random_batch(int64_t rows, int64_t length, int64_t vocabulary) {
    TokenBatch b;
    Random random(1, "tokens");
    for (int64_t i = 0; i < rows * length; i++) {
        b.tokens.push_back(int32_t(random.below(uint64_t(i), uint64_t(vocabulary))));
        b.labels.push_back(int32_t(random.below(uint64_t(i + 1), uint64_t(vocabulary))));
        b.positions.push_back(int32_t(i % length));
    }
    for (int64_t r = 0; r <= rows; r++) b.sequence_starts.push_back(int32_t(r * length));
    b.valid = rows * length;
    return b;
}

// User and system time of all threads: on a shared machine steadier than the clock on the wall.
double processor_seconds() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

void print_kernels(const std::map<std::string, double>& seconds, const std::vector<const Program*>& programs,
                   double whole) {
    std::map<std::string, std::pair<Cost, int>> cost;
    for (const Program* p : programs)
        for (size_t i = 0; i < p->steps().size(); i++) {
            auto& [c, calls] = cost[p->steps()[i].kernel];
            c += p->cost(i), calls++;
        }
    std::vector<std::pair<double, std::string>> order;
    for (auto& [kernel, s] : seconds) order.push_back({s, kernel});
    std::sort(order.rbegin(), order.rend());
    std::printf("%-34s %6s %9s %7s %9s %9s\n", "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s");
    for (auto& [s, kernel] : order)
        std::printf("%-34s %6d %9.2f %6.1f%% %9.1f %9.1f\n", kernel.c_str(), cost[kernel].second, s * 1e3,
                    100 * s / whole, cost[kernel].first.flops / s / 1e9, cost[kernel].first.bytes / s / 1e9);
}

int run(int argc, char** argv) {
    Args args("bench_step", "Times whole training steps (forward, backward, AdamW) on random tokens.");
    auto& name = args.option("model", "gpt2-124m", "gpt2-124m or qwen3-small");
    auto& rows = args.option("batch", 4, "rows");
    auto& length = args.option("sequence", 64, "tokens of a row");
    auto& steps = args.option("steps", 6, "steps, the first of which warms up");
    auto& recompute = args.option("recompute", "none", "none, full or every:K");
    auto& json = args.flag("json", "one JSON object instead of the table");
    args.common();
    if (!args.parse(argc, argv)) return 0;
    check(steps >= 1 && rows >= 1 && length >= 1, "--steps, --batch and --sequence must be at least 1");

    Dtype dtype = dtype_from(args.dtype());
    Store store(device_from(args.device()));
    auto model = make_model(config_of(name));
    model->recompute = Recompute::parse(recompute);
    check(length <= model->dims.context, "--sequence: the model has %ld positions", model->dims.context);
    model->allocate(store, dtype, true);
    model->initialise(42);
    Optimizer optimizer(*model, store, {.lr = 1e-4, .weight_decay = 0, .measure_norm = false});
    StepProgram program(*model, rows * length, rows, StepProgram::training, length);
    TokenBatch batch = random_batch(rows, length, model->dims.V);

    std::vector<double> times, processor;
    std::map<std::string, double> fastest; // of each kernel's steps, whichever step it was
    double loss = 0;
    for (int64_t step = 0; step < steps; step++) {
        std::map<std::string, double> seconds;
        double start = seconds_now(), cpu = processor_seconds();
        loss =
            program.run(batch, 1.0 / double(batch.valid), true, {.seconds = &seconds}) / double(batch.valid);
        double before = seconds_now();
        optimizer.update(step, 1);
        times.push_back(seconds_now() - start), processor.push_back(processor_seconds() - cpu);
        seconds["(AdamW)"] = seconds_now() - before;
        for (auto& [kernel, s] : seconds) {
            auto [at, fresh] = fastest.try_emplace(kernel, s);
            if (!fresh) at->second = std::min(at->second, s);
        }
    }
    if (times.size() > 1) times.erase(times.begin()), processor.erase(processor.begin());
    std::sort(times.begin(), times.end());
    double tokens = double(rows * length), best = tokens / times.front(),
           median = tokens / times[times.size() / 2];
    double per_processor = tokens / *std::min_element(processor.begin(), processor.end());
    double flops = model->flops(length).per_token;
    if (json) {
        Json j{{"model", name},
               {"dtype", args.dtype()},
               {"threads", threads()},
               {"batch", rows},
               {"sequence", length}};
        j["tokens_per_second_best"] = best, j["tokens_per_second_median"] = median, j["loss"] = loss;
        j["tokens_per_processor_second"] = per_processor;
        j["mfu"] = flops * best / gemm_peak_gflops(dtype) / 1e9;
        std::printf("%s\n", j.dump().c_str());
        return 0;
    }
    print_kernels(fastest, {&program.program()}, times.front());
    double in_kernels = 0;
    for (auto& [kernel, s] : fastest) in_kernels += s;
    std::printf("the best of every kernel %.1f ms, the best step %.1f ms\n\n%s\n", in_kernels * 1e3,
                times.front() * 1e3, program.program().summary().c_str());
    double peak = gemm_peak_gflops(dtype);
    std::printf("%s %s %ldx%ld, %d threads: loss %.5f, best %s tokens/s, median %s (%s per processor "
                "second); %.0f GFLOP/s of %.0f (MFU %.1f%%)\n",
                name.c_str(), args.dtype().c_str(), rows, length, threads(), loss,
                with_commas(int64_t(best)).c_str(), with_commas(int64_t(median)).c_str(),
                with_commas(int64_t(per_processor)).c_str(), flops * best / 1e9, peak,
                flops * best / 1e7 / peak);
    std::printf("memory: weights, gradients and optimiser %s, activations %s\n",
                human(double(store.bytes()), "B").c_str(),
                human(double(program.program().planned_bytes()), "B").c_str());
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_main("bench_step", [&] { return run(argc, argv); });
}
