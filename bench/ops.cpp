// Times the "bench" cases of every op's spec: per kernel milliseconds, bytes/s, FLOP/s and the share of the
// floor.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/floors.h"
#include "engine/base/cli.h"
#include "engine/plan/program.h"
#include "kernels/linear/gemm.h"
#include "kernels/spec.h"

using namespace nvl;

namespace {

struct Line {
    double seconds = 1e9;
    Cost cost;
};

// Best time of each kernel over several runs of the case's forward and backward.
std::map<std::string, Line> time_case(const Op& op, const std::string& text, Dtype dtype, double budget) {
    Store store;
    Tape t;
    Recording recording(t);
    Case c(store, text, {.dtype = dtype});
    std::vector<Tensor> outputs = op.build(c);
    if (!op.gradients) t.no_grad();
    for (Tensor& y : outputs) {
        t.keep(y);
        if (op.gradients && is_float(y.dtype()) && y.buffer->needs_grad) t.seed(y, {});
    }
    if (op.gradients) t.backward(c.differentiable);
    Program program(t);
    std::map<std::string, Line> lines;
    for (size_t i = 0; i < program.steps().size(); i++)
        lines[program.steps()[i].kernel].cost += program.cost(i);
    double start = seconds_now();
    for (int round = 0; round < 3 || (round < 200 && seconds_now() - start < budget); round++) {
        std::map<std::string, double> seconds;
        program.run({.counts = c.counts, .seconds = &seconds});
        for (auto& [kernel, s] : seconds) lines[kernel].seconds = std::min(lines[kernel].seconds, s);
    }
    lines.erase("fill");
    return lines;
}

void print(const Op& op, const std::string& text, Dtype dtype, const std::string& kernel, const Line& line,
           double floor, bool json) {
    double ms = line.seconds * 1e3, bytes = line.cost.bytes / line.seconds / 1e9,
           flops = line.cost.flops / line.seconds / 1e9;
    if (json) {
        nlohmann::ordered_json j{
            {"op", op.name}, {"kernel", kernel}, {"case", text}, {"dtype", name_of(dtype)}};
        j["ms"] = ms, j["bytes"] = line.cost.bytes, j["flops"] = line.cost.flops,
        j["share_of_floor"] = floor / line.seconds;
        std::printf("%s\n", j.dump().c_str());
    } else
        std::printf("%-28s %-30s %5s %10.4f %9.1f %9.1f %7.0f%%\n", kernel.c_str(), text.c_str(),
                    name_of(dtype), ms, bytes, flops, floor / line.seconds * 100);
}

/// What a fixed order of summation costs: our product against oneDNN's with the same arguments, both packing
/// on the fly, calls interleaved, best of each.
void price_of_determinism(double budget, bool json) {
#ifdef NVL_ONEDNN
    struct Shape {
        const char* name;
        int64_t M, N, K;
        bool trans_a, trans_b;
    };
    constexpr Shape SHAPES[] = {{"y, 768 to 3072", 256, 3072, 768, false, true},
                                {"y, 3072 to 768", 256, 768, 3072, false, true},
                                {"dx, 768 to 2304", 256, 768, 2304, false, false},
                                {"dw, 768 to 3072", 3072, 768, 256, true, false}};
    if (!json)
        std::printf(
            "\nthe price of a fixed order: GPT-2's products of 256 tokens, GFLOP/s\n%-20s %5s %9s %9s %12s\n",
            "product", "dtype", "ours", "oneDNN", "ours/oneDNN");
    for (Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const Shape& s : SHAPES) {
            Memory a(size_t(s.M * s.K) * 4), b(size_t(s.N * s.K) * 4), c(size_t(s.M * s.N) * 4);
            for (Memory* m : {&a, &b, &c}) std::memset(m->data(), 0x3c, m->bytes()); // 0.0115, in bf16 too
            GemmArgs g{.M = s.M, .N = s.N, .K = s.K};
            g.A = a.data(), g.trans_a = s.trans_a, g.B = b.data(), g.trans_b = s.trans_b;
            g.C = c.data(), g.in = dtype;
            double best[2] = {1e9, 1e9}, start = seconds_now();
            for (int round = 0; round < 4 || seconds_now() - start < budget; round++)
                for (int other = 0; other < 2; other++) {
                    set_gemm_backend(other ? "onednn" : "own");
                    for (int call = 0; call < 4; call++) { // the first wakes the contestant's threads
                        double before = seconds_now();
                        gemm(g);
                        best[other] = std::min(best[other], seconds_now() - before);
                    }
                }
            set_gemm_backend("own");
            double flops = 2e-9 * double(s.M) * double(s.N) * double(s.K);
            if (json) {
                nlohmann::ordered_json j{{"price_of_determinism", s.name}, {"dtype", name_of(dtype)}};
                j["gflops"] = flops / best[0], j["onednn_gflops"] = flops / best[1],
                j["ratio"] = best[1] / best[0];
                std::printf("%s\n", j.dump().c_str());
            } else
                std::printf("%-20s %5s %9.1f %9.1f %12.2f\n", s.name, name_of(dtype), flops / best[0],
                            flops / best[1], best[1] / best[0]);
        }
#else
    if (!json) std::printf("\nthe price of a fixed order: this build has no oneDNN to compare with\n");
#endif
}

int run(int argc, char** argv) {
    Args args("bench_ops", "Times every op's bench cases against the floors of this machine.");
    auto& filters =
        args.positional("[FILTER]", "only ops whose name contains FILTER; price: our GEMM against oneDNN");
    auto& budget = args.option("seconds", 0.3, "time per case and dtype");
    auto& json = args.flag("json", "one JSON object per line");
    args.common();
    if (!args.parse(argc, argv)) return 0;

    double bandwidth = memory_bandwidth();
    std::map<Dtype, double> peak{{Dtype::f32, gemm_peak_gflops(Dtype::f32)},
                                 {Dtype::bf16, gemm_peak_gflops(Dtype::bf16)}};
    if (!json) {
        std::printf(
            "%d threads; memory %.1f GB/s, multiply-add %.0f GFLOP/s f32, %.0f bf16 (small cases live in the "
            "caches and may exceed 100%%)\n",
            threads(), bandwidth / 1e9, peak[Dtype::f32], peak[Dtype::bf16]);
        std::printf("%-28s %-30s %5s %10s %9s %9s %8s\n", "kernel", "case", "dtype", "ms", "GB/s", "GFLOP/s",
                    "floor");
    }
    bool any = filters.empty() || std::find(filters.begin(), filters.end(), "price") != filters.end();
    if (any) price_of_determinism(budget, json);
    for (const Op& op : all_ops()) {
        bool wanted = filters.empty();
        for (auto& f : filters) wanted |= op.name.find(f) != std::string::npos;
        if (!wanted) continue;
        any = true;
        for (const std::string& text : op.cases) {
            if (text.rfind("bench ", 0) != 0) continue;
            for (Dtype dtype : {Dtype::f32, Dtype::bf16})
                for (auto& [kernel, line] : time_case(op, text, dtype, budget)) {
                    double floor =
                        std::max(line.cost.bytes / bandwidth, line.cost.flops / (peak[dtype] * 1e9));
                    print(op, text.substr(6), dtype, kernel, line, floor, json);
                }
        }
    }
    check(any, "no op's name contains \"%s\"", filters.empty() ? "" : filters[0].c_str());
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_main("bench_ops", [&] { return run(argc, argv); });
}
