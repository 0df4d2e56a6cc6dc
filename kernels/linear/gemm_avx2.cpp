// AVX2 with FMA: 12 accumulators, 2 of B, 1 broadcast of A = 15 of 16 registers.
#define GEMM_LANES 8
#define GEMM_ROWS 6
#define GEMM_NATIVE_BF16 0
#include "kernels/linear/gemm_impl.h"

namespace nvl {
static bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static constexpr GemmVariant variant = make_variant("avx2", supported);
const GemmVariant* gemm_avx2() { return &variant; }
} // namespace nvl
