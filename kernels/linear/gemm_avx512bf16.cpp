// AVX-512 with vdpbf16ps: 28 accumulators, 2 of B, 1 broadcast of A = 31 registers; 32 columns also suit
// swiglu.
#define GEMM_LANES 16
#define GEMM_ROWS 14
#define GEMM_NATIVE_BF16 1
#include "kernels/linear/gemm_impl.h"

namespace nvl {
static bool supported() {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
static constexpr GemmVariant variant = make_variant("avx512bf16", supported);
const GemmVariant* gemm_avx512bf16() { return &variant; }
} // namespace nvl
