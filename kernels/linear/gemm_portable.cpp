// Any CPU: std::fma lane by lane, a library call where the CPU has none. Slow and right.
#define GEMM_LANES 4
#define GEMM_ROWS 4
#define GEMM_NATIVE_BF16 0
#include "kernels/linear/gemm_impl.h"

namespace nvl {
static bool supported() { return true; }
static constexpr GemmVariant variant = make_variant("portable", supported);
const GemmVariant* gemm_portable() { return &variant; }
} // namespace nvl
