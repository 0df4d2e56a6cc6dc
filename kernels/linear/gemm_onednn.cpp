// oneDNN behind the same gemm(): its matmul, then our epilogue over its f32 result where one is asked for.
#include "kernels/linear/gemm_variant.h"
#ifdef NVL_ONEDNN
#include <dlfcn.h>

#include <algorithm>
#include <dnnl.hpp>

#include "engine/base/memory.h"
#include "engine/base/parallel.h"
#endif

namespace nvl {

#ifndef NVL_ONEDNN
void gemm_onednn(const GemmArgs&, const GemmEpilogue&) { fail("gemm: this build has no oneDNN"); }
#else

static dnnl::memory::desc describe(int64_t rows, int64_t cols, int64_t ld, bool transposed, Dtype dtype) {
    using type = dnnl::memory::data_type;
    dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, ld} : dnnl::memory::dims{ld, 1};
    return {{rows, cols}, dtype == Dtype::bf16 ? type::bf16 : type::f32, strides};
}

// NR columns of M rows at a time, copied to where finish() expects a tile.
static void apply_epilogue(const float* sum, const GemmArgs& g, const GemmEpilogue& e) {
    const GemmVariant& v = *current_gemm_variant();
    parallel_for(g.M, 16, [&](int64_t begin, int64_t end) {
        std::vector<float> tile(size_t(v.NR));
        for (int64_t m = begin; m < end; m++)
            for (int64_t n = 0; n < g.N; n += v.NR) {
                int cols = int(std::min<int64_t>(v.NR, g.N - n));
                std::copy_n(sum + m * g.N + n, cols, tile.data());
                v.finish(tile.data(), 1, cols, e, m, n);
            }
    });
}

// oneDNN's threads are those of the OpenMP runtime that it brings along, which follows threads() this way.
static void follow_threads() {
    static auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
    thread_local int now = 0;
    if (set && now != threads()) set(now = threads());
}

void gemm_onednn(const GemmArgs& g, const GemmEpilogue& e) {
    follow_threads();
    static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    thread_local dnnl::stream stream(engine);
    bool plain = !e.accumulate && !e.bias && !e.residual && e.activation == Epilogue::none;
    float* sum = plain ? nullptr : reinterpret_cast<float*>(scratch(size_t(g.M * g.N) * 4, 7));
    auto a = describe(g.M, g.K, g.lda, g.trans_a, g.in), b = describe(g.K, g.N, g.ldb, g.trans_b, g.in);
    auto c = plain ? describe(g.M, g.N, g.ldc, false, g.out) : describe(g.M, g.N, g.N, false, Dtype::f32);
    dnnl::matmul multiply(dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), engine));
    multiply.execute(stream, {{DNNL_ARG_SRC, {a, engine, const_cast<void*>(g.A)}},
                              {DNNL_ARG_WEIGHTS, {b, engine, const_cast<void*>(g.B)}},
                              {DNNL_ARG_DST, {c, engine, plain ? g.C : sum}}});
    stream.wait();
    if (!plain) apply_epilogue(sum, g, e);
}
#endif

} // namespace nvl
