// The entry on the GPU: checks, and the choice of backend.
#include "kernels/linear/gemm_cuda.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "kernels/linear/gemm_kernels.cuh"

namespace nvl {

namespace {

std::string& backend() {
    static std::string name = [] {
        const char* wanted = std::getenv("NVL_GEMM");
        return std::string(wanted ? wanted : "own");
    }();
    return name;
}

std::string tile = "auto";

/// Fills in leading dimensions.
GemmArgs checked(const GemmArgs& args) {
    GemmArgs g = args;
    constexpr int64_t LIMIT = std::numeric_limits<int>::max() - 1024;
    check(g.M >= 0 && g.N >= 0 && g.K >= 0 && g.M < LIMIT && g.N < LIMIT && g.K < LIMIT,
          "gemm: expected sizes from 0 to 2^31, found M=%ld N=%ld K=%ld", long(g.M), long(g.N), long(g.K));
    check(g.in == Dtype::f32 || g.in == Dtype::bf16, "gemm: on CUDA inputs are f32 or bf16, not %s",
          name_of(g.in));
    check(g.out == Dtype::f32 || g.out == Dtype::bf16, "gemm: on CUDA results are f32 or bf16, not %s",
          name_of(g.out));
    check(!g.bias || g.bias_dtype == Dtype::f32 || g.bias_dtype == Dtype::bf16,
          "gemm: on CUDA a bias is f32 or bf16, not %s", name_of(g.bias_dtype));
    check(!g.packed && g.activation != Epilogue::swiglu && g.leaves <= 1,
          "gemm: packed weights, swiglu and leaves belong to the CPU");
    if (!g.lda) g.lda = std::max<int64_t>(1, g.trans_a ? g.M : g.K);
    if (!g.ldb) g.ldb = std::max<int64_t>(1, g.trans_b ? g.K : g.N);
    if (!g.ldc) g.ldc = g.N;
    if (!g.ldr) g.ldr = g.N;
    return g;
}

bool aligned_to_16_bytes(const GemmArgs& g) {
    auto aligned = [](const void* p, int64_t ld) { return uintptr_t(p) % 16 == 0 && ld % 8 == 0; };
    return aligned(g.A, g.lda) && aligned(g.B, g.ldb);
}
void check_backend(const std::string& name) {
    check(name == "own" || name == "cublaslt" || name == "hopper",
          "gemm: no CUDA backend \"%s\" (NVL_GEMM); expected own, cublaslt or hopper", name.c_str());
}

} // namespace

HopperGemm& gemm_hopper() {
    static HopperGemm kernels = nullptr;
    return kernels;
}

void cuda_gemm(const GemmArgs& args, const CudaGemmOptions& o) {
    GemmArgs g = checked(args);
    check(!o.symmetric || (g.M == g.N && g.A == g.B && g.lda == g.ldb && g.trans_a != g.trans_b && !g.bias),
          "gemm: a symmetric product is A A^T, without a bias");
    if (!g.M || !g.N) return;
    if (cuda_gemm_backend() == "cublaslt" && g.K) return gemm_cublaslt(g, o.keep);
    if (cuda_gemm_backend() == "hopper" && g.in == Dtype::bf16 && g.K && aligned_to_16_bytes(g)) {
        check(gemm_hopper(), "gemm: this build has no kernels for sm_90a (NVL_CUDA_ARCHS); use NVL_GEMM=own");
        return gemm_hopper()(g, o);
    }
    g.in == Dtype::bf16 ? gemm_bf16_cuda(g, o, tile) : gemm_f32_cuda(g, o, tile);
}

std::string cuda_gemm_backend() {
    check_backend(backend());
    return backend();
}
void set_cuda_gemm_backend(const std::string& name) {
    check_backend(name);
    backend() = name;
}
bool cuda_gemm_has_hopper() { return gemm_hopper(); }
void set_cuda_gemm_tile(const std::string& name) { tile = name; }

} // namespace nvl
