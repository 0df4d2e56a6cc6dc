// The entry: what is asked for, by which backend and variant.
#include "kernels/linear/gemm.h"

#include <algorithm>
#include <cstring>

#include "engine/base/clock.h"
#include "engine/base/parallel.h"
#include "kernels/linear/gemm_variant.h"

namespace nvl {

namespace {

constexpr int SLOT_BIAS = 4; // scratch

const std::vector<const GemmVariant*>& usable() {
    static const auto list = [] {
        std::vector<const GemmVariant*> v;
        for (auto* variant : {gemm_avx512bf16(), gemm_avx512(), gemm_avx2(), gemm_portable()})
            if (variant->supported()) v.push_back(variant);
        return v;
    }();
    return list;
}
const GemmVariant*& chosen() {
    static const GemmVariant* v = usable().front();
    return v;
}
bool onednn = false;

void check_operand(const char* name, const void* data, int64_t ld, int64_t row) {
    check(data, "gemm: %s is null", name);
    check(ld >= row, "gemm: the leading dimension of %s is %ld, shorter than its row of %ld", name, long(ld),
          long(row));
}

/// Fills in leading dimensions; every later stage may rely on what is checked here.
GemmArgs checked(const GemmArgs& args) {
    GemmArgs g = args;
    check(g.M >= 0 && g.N >= 0 && g.K >= 0, "gemm: expected sizes >= 0, found M=%ld N=%ld K=%ld", long(g.M),
          long(g.N), long(g.K));
    check(g.in == Dtype::f32 || g.in == Dtype::bf16 || g.in == Dtype::f64,
          "gemm: inputs are f32, bf16 or f64, not %s", name_of(g.in));
    check(g.in == Dtype::f64 ? g.out == Dtype::f64 : g.out == Dtype::f32 || g.out == Dtype::bf16,
          "gemm: %s inputs cannot give %s", name_of(g.in), name_of(g.out));
    bool swiglu = g.activation == Epilogue::swiglu;
    int64_t cols = swiglu ? g.N / 2 : g.N;
    if (!g.lda) g.lda = std::max<int64_t>(1, g.trans_a ? g.M : g.K);
    if (!g.ldb) g.ldb = std::max<int64_t>(1, g.trans_b ? g.K : g.N);
    if (!g.ldc) g.ldc = cols;
    if (!g.ldr) g.ldr = cols;
    if (!g.leaves) g.leaves = gemm_order(g.K).leaves;
    check(g.leaves == 1 || ((g.leaves == 2 || g.leaves == 4 || g.leaves == 8) && g.K % (2 * g.leaves) == 0),
          "gemm: K=%ld cannot be cut into %d even leaves; expected 1, 2, 4 or 8", long(g.K), g.leaves);
    if (!g.M || !g.N) return g;
    if (g.K) check_operand("A", g.A, g.lda, g.trans_a ? g.M : g.K);
    check_operand("C", g.C, g.ldc, cols);
    if (g.residual) check_operand("the residual", g.residual, g.ldr, cols);
    if (g.packed) {
        const PackedWeight& w = *g.packed;
        check(w.N() == g.N && w.K() == g.K && w.dtype() == g.in,
              "gemm: the packed weight is (%ld,%ld) %s, expected (%ld,%ld) %s", long(w.N()), long(w.K()),
              name_of(w.dtype()), long(g.N), long(g.K), name_of(g.in));
        check(w.swiglu() == swiglu,
              "gemm: a weight packed from gate and up goes with swiglu, and only with it");
        check(!onednn, "gemm: packed weights belong to the backend \"own\", but \"onednn\" is set");
    } else {
        check(!swiglu, "gemm: swiglu needs a weight packed from gate and up");
        if (g.K) check_operand("B", g.B, g.ldb, g.trans_b ? g.K : g.N);
    }
    check(!(swiglu && (g.bias || g.residual || g.accumulate)),
          "gemm: swiglu takes no bias, residual or accumulate");
    return g;
}

/// The bias as f32, readable by whole panels.
const float* bias_f32(const GemmArgs& g) {
    if (!g.bias) return nullptr;
    auto* out = reinterpret_cast<float*>(scratch(size_t(g.N) * 4, SLOT_BIAS));
    dispatch(g.bias_dtype, [&]<class X> {
        auto* bias = static_cast<const X*>(g.bias);
        for (int64_t n = 0; n < g.N; n++) out[n] = float(bias[n]);
    });
    return out;
}

} // namespace

void gemm(const GemmArgs& args) {
    GemmArgs g = checked(args);
    if (!g.M || !g.N) return;
    if (g.in == Dtype::f64) return gemm_f64(g);
    GemmEpilogue e{g.C, g.ldc, g.out, g.accumulate, bias_f32(g), g.residual, g.ldr, g.activation};
    onednn&& g.K ? gemm_onednn(g, e) : gemm_blocked(g, e);
}

const GemmVariant* current_gemm_variant() { return chosen(); }
std::string gemm_variant() { return chosen()->name; }
std::vector<std::string> gemm_variants() {
    std::vector<std::string> names;
    for (auto* v : usable()) names.push_back(v->name);
    return names;
}
void set_gemm_variant(const std::string& name) {
    std::string known;
    for (auto* v : usable()) {
        if (name == v->name || name == "auto") {
            chosen() = v;
            return;
        }
        known += std::string(" ") + v->name;
    }
    fail("gemm: no variant \"%s\" on this CPU; it runs auto%s", name.c_str(), known.c_str());
}

std::string gemm_backend() { return onednn ? "onednn" : "own"; }
void set_gemm_backend(const std::string& name) {
    check(name == "own" || name == "onednn", "gemm: no backend \"%s\"; expected own or onednn", name.c_str());
#ifndef NVL_ONEDNN
    check(name == "own", "gemm: this build has no oneDNN; install libdnnl-dev and configure again");
#endif
    onednn = name == "onednn";
}

// The micro-kernel on panels that stay in L1: nothing but multiply-adds, on all threads at once.
double gemm_peak_gflops(Dtype dtype) {
    check(dtype == Dtype::f32 || dtype == Dtype::bf16, "gemm peak: expected f32 or bf16, found %s",
          name_of(dtype));
    const GemmVariant& v = *chosen();
    constexpr int64_t WORDS = 96, CALLS = 1000;
    const int64_t per_word = dtype == Dtype::bf16 ? 2 : 1;
    double best = 0, flops = 2.0 * double(v.MR * v.NR) * double(WORDS * per_word * CALLS) * threads();
    for (double begun = seconds_now(), start = begun; start - begun < 0.05;) {
        start = seconds_now();
        parallel_for(threads(), 1, [&](int64_t begin, int64_t end) {
            auto* a = reinterpret_cast<uint32_t*>(scratch(256 << 10, SLOT_BIAS));
            uint32_t* b = a + WORDS * v.width(v.MR) + 512;
            for (int64_t i = 0; i < WORDS * (v.width(v.MR) + v.NR) + 512; i++)
                a[i] = 0x3f803f80; // 1.0, or two bf16 of 1.0
            GemmTile t{};
            GemmLines none;
            t.read = &none;
            t.a = a, t.b = b, t.words = WORDS, t.leaves = 1, t.b_panel = 0, t.prefetch_b = 0;
            t.out = reinterpret_cast<float*>(b + WORDS * v.NR + 512), t.out_row = v.NR;
            GemmKernel kernel = v.kernel(dtype, v.MR, 1);
            for (int64_t i = begin; i < end; i++)
                for (int64_t call = 0; call < CALLS; call++) kernel(t);
        });
        best = std::max(best, flops / (seconds_now() - start) * 1e-9);
    }
    return best;
}

} // namespace nvl
