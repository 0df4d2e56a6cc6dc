// GEMM against oneDNN and the machine: GFLOP/s for shapes of training, GB/s of weights for decode.
//   bench_gemm [--dtype f32|bf16|both] [--cores N] [--seconds S] [--what gemm|decode|all]
// Calls of the contestants are interleaved and the best of each counts. One core is timed by its own CPU time
// (machines are shared), more by the wall clock.
#include <time.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "engine/base/cli.h"
#include "engine/base/memory.h"
#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "kernels/linear/gemm.h"
#ifdef NVL_ONEDNN
#include <dnnl.hpp>
#endif

using namespace nvl;

namespace {

struct Shape {
    int64_t M, N, K;
    const char* layout; // of A and B: N as is, T transposed
};
constexpr Shape SHAPES[] = {{1024, 1024, 1024, "NN"}, {256, 768, 768, "NT"},   {256, 768, 768, "NN"},
                            {768, 768, 256, "TN"},    {256, 3072, 768, "NT"},  {256, 768, 3072, "NT"},
                            {3072, 768, 256, "TN"},   {1024, 2048, 512, "NT"}, {1024, 512, 2048, "NN"},
                            {512, 2048, 1024, "TN"},  {64, 64, 64, "NT"},      {256, 50304, 768, "NT"}};

double seconds(clockid_t clock) {
    timespec t;
    clock_gettime(clock, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

Memory random_matrix(int64_t elements, Dtype dtype) {
    Memory m(size_t(elements * size_of(dtype)));
    for (int64_t i = 0; i < elements; i++) {
        float x = float(uint32_t(i * 2654435761u) >> 16 & 1023) / 1024 - 0.5f;
        if (dtype == Dtype::f32)
            reinterpret_cast<float*>(m.data())[i] = x;
        else
            reinterpret_cast<bf16*>(m.data())[i] = bf16(x);
    }
    return m;
}

/// Best seconds per call of each contestant; a null function gives 0.
std::vector<double> race(const std::vector<std::function<void()>>& runs, double flops, double budget) {
    clockid_t clock = threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    int inner = int(std::max(1.0, 1e8 / flops));
    std::vector<double> best(runs.size(), 1e30);
    double start = seconds(CLOCK_MONOTONIC);
    for (int round = 0; round < 4 || seconds(CLOCK_MONOTONIC) - start < budget; round++)
        for (size_t i = 0; i < runs.size(); i++) {
            if (!runs[i]) continue;
            runs[i](); // warm
            for (int repeat = 0; repeat < 2; repeat++) {
                double t = seconds(clock);
                for (int n = 0; n < inner; n++) runs[i]();
                best[i] = std::min(best[i], (seconds(clock) - t) / inner);
            }
            if (threads() > 1) usleep(8000); // the other library's threads spin for a while
        }
    for (size_t i = 0; i < runs.size(); i++)
        if (!runs[i]) best[i] = 0;
    return best;
}

/// oneDNN's matmul, created once; prepacked: the weight in the layout that it likes best, reordered
/// beforehand.
std::function<void()> onednn(const GemmArgs& g, bool prepacked) {
#ifdef NVL_ONEDNN
    set_gemm_backend("onednn"), gemm(g), set_gemm_backend("own"); // which also tells it the number of threads
    using namespace dnnl;
    static engine cpu(engine::kind::cpu, 0);
    auto type = g.in == Dtype::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    using tag = memory::format_tag;
    memory::desc a({g.M, g.K}, type, g.trans_a ? tag::ba : tag::ab), any({g.K, g.N}, type, tag::any);
    memory::desc b({g.K, g.N}, type, g.trans_b ? tag::ba : tag::ab),
        c({g.M, g.N}, memory::data_type::f32, tag::ab);
    auto plan = matmul::primitive_desc(matmul::desc(a, prepacked ? any : b, c), cpu);
    memory from(b, cpu, const_cast<void*>(g.B)), to(plan.weights_desc(), cpu);
    stream order(cpu);
    reorder(from, to).execute(order, from, to);
    order.wait();
    memory A(a, cpu, const_cast<void*>(g.A)), C(c, cpu, g.C);
    return [=, multiply = matmul(plan)]() mutable {
        multiply.execute(order, {{DNNL_ARG_SRC, A}, {DNNL_ARG_WEIGHTS, to}, {DNNL_ARG_DST, C}});
        order.wait();
    };
#else
    return nullptr;
#endif
}

void bench_shapes(Dtype dtype, double budget) {
    double peak = gemm_peak_gflops(dtype), log_plain = 0, log_packed = 0;
    printf("\n%s, %d thread%s, %s, peak of the inner loop %.0f GFLOP/s\n\n", name_of(dtype), threads(),
           threads() > 1 ? "s" : "", gemm_variant().c_str(), peak);
    printf("| M x N x K | ours | prepacked | oneDNN | prepacked | ours/oneDNN | prepacked | %% of peak |\n");
    printf("|---|---|---|---|---|---|---|---|\n");
    for (const Shape& s : SHAPES) {
        bool trans_a = s.layout[0] == 'T', trans_b = s.layout[1] == 'T';
        Memory A = random_matrix(s.M * s.K, dtype), B = random_matrix(s.N * s.K, dtype);
        Memory B_rows = trans_b ? Memory() : random_matrix(s.N * s.K, dtype); // values do not matter here
        Memory C(size_t(s.M * s.N) * 4);
        GemmArgs g{.M = s.M, .N = s.N, .K = s.K};
        g.A = A.data(), g.B = B.data(), g.C = C.data(), g.in = dtype, g.trans_a = trans_a,
        g.trans_b = trans_b;
        PackedWeight packed(trans_b ? B.data() : B_rows.data(), 0, s.N, s.K, dtype);
        GemmArgs p = g;
        p.packed = &packed;
        double flops = 2.0 * double(s.M) * double(s.N) * double(s.K);
        auto t = race({[=] { gemm(g); }, [=] { gemm(p); }, onednn(g, false), onednn(g, true)}, flops, budget);
        auto rate = [&](int i) { return t[i] ? flops / t[i] * 1e-9 : 0; };
        log_plain += std::log(rate(0) / rate(2)), log_packed += std::log(rate(1) / rate(3));
        printf("| %ldx%ldx%ld %s | %.0f | %.0f | %.0f | %.0f | %.2f | %.2f | %.0f |\n", long(s.M), long(s.N),
               long(s.K), s.layout, rate(0), rate(1), rate(2), rate(3), rate(0) / rate(2), rate(1) / rate(3),
               100 * rate(0) / peak);
        fflush(stdout);
    }
    int n = int(std::size(SHAPES));
    printf("| geometric mean | | | | | %.3f | %.3f | |\n", std::exp(log_plain / n), std::exp(log_packed / n));
}

/// The fastest that memory can be read on threads() threads.
void read_all(const Memory& m) {
    typedef uint64_t Line __attribute__((vector_size(64)));
    int64_t lines = int64_t(m.bytes() / 512) * 8;
    parallel_for(lines / 8, 4096, [&](int64_t begin, int64_t end) {
        auto* p = reinterpret_cast<const Line*>(m.data());
        Line x[8] = {};
        for (int64_t i = begin; i < end; i++)
            for (int j = 0; j < 8; j++) x[j] ^= p[8 * i + j];
        for (int j = 1; j < 8; j++) x[0] ^= x[j];
        asm volatile("" ::"r"(x[0][0]));
    });
}

void bench_decode(Dtype dtype, int64_t N, int64_t K, double budget) {
    Memory A = random_matrix(16 * K, dtype), B = random_matrix(N * K, dtype), C(size_t(16 * N) * 4);
    PackedWeight packed(B.data(), 0, N, K, dtype);
    std::vector<std::function<void()>> runs{[&] { read_all(B); }};
    for (const PackedWeight* weight : std::initializer_list<const PackedWeight*>{&packed, nullptr})
        for (int64_t M : {1, 2, 4, 8, 16}) {
            GemmArgs g{.M = M, .N = N, .K = K};
            g.A = A.data(), g.B = B.data(), g.trans_b = true, g.C = C.data(), g.in = dtype, g.packed = weight;
            runs.push_back([=] { gemm(g); });
        }
    double bytes = double(B.bytes());
    auto t = race(runs, bytes * 4, budget);
    printf("| %s %ldx%ld, %.0f MB, %d th |", name_of(dtype), long(N), long(K), bytes * 1e-6, threads());
    for (double x : t) printf(" %.1f |", bytes / x * 1e-9);
    printf("\n");
    fflush(stdout);
}

} // namespace

int main(int argc, char** argv) {
    return run_main("bench_gemm", [&] {
        Args args("bench_gemm", "GEMM against oneDNN, decode against the memory.");
        auto& dtype = args.option("dtype", "both", "f32, bf16 or both");
        auto& cores = args.option("cores", 0, "threads; 0: first 1, then all");
        auto& budget = args.option("seconds", 0.4, "per row");
        auto& what = args.option("what", "all", "gemm, decode or all");
        if (!args.parse(argc, argv)) return 0;
        int all = threads();
        std::vector<int> counts = cores     ? std::vector{int(cores)}
                                  : all > 1 ? std::vector{1, all}
                                            : std::vector{1};
        std::vector<Dtype> types{Dtype::f32, Dtype::bf16};
        if (dtype != "both") types = {dtype_from(dtype)};
        if (what != "decode")
            for (int n : counts)
                for (Dtype d : types) set_threads(n), bench_shapes(d, budget);
        if (what == "gemm") return 0;
        printf("\nGB/s of weights\n\n| W (N,K) | pure read | M=1 | 2 | 4 | 8 | 16 | not prepacked: 1 | 2 | 4 "
               "| 8 | 16 "
               "|\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
        for (int n : counts)
            for (Dtype d : types)
                set_threads(n), bench_decode(d, 11008, 2048, budget), bench_decode(d, 1536, 576, budget);
        return 0;
    });
}
