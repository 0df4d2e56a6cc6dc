// AVX-512 without vdpbf16ps: bf16 by two multiply-adds, the same bits.
#define GEMM_LANES 16
#define GEMM_ROWS 14
#define GEMM_NATIVE_BF16 0
#include "kernels/linear/gemm_impl.h"

namespace nvl {
static bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static constexpr GemmVariant variant = make_variant("avx512", supported);
const GemmVariant* gemm_avx512() { return &variant; }
} // namespace nvl
