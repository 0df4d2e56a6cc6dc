// What happens to a finished sum of a GEMM: C = (add ? keep C : 0) + residual + act(sum + bias).
#pragma once
#include "kernels/linear/gemm.h"
#include "kernels/pointwise/functions.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

/// Types and options are run-time values: they cost a few uniform branches for each four elements, and spare
/// a kernel for every combination.
struct CudaEpilogue {
    void* c;
    const void *residual, *bias;
    int64_t ldc, ldr;
    int M, N;
    float keep;
    bool bf16_out, bf16_bias, add, gelu;
    bool vector; // four neighbouring elements of C, the residual and the bias are one aligned access
};

inline CudaEpilogue cuda_epilogue(const GemmArgs& g, float keep) {
    CudaEpilogue e{.c = g.C,
                   .residual = g.residual,
                   .bias = g.bias,
                   .ldc = g.ldc,
                   .ldr = g.ldr,
                   .M = int(g.M),
                   .N = int(g.N),
                   .keep = keep,
                   .bf16_out = g.out == Dtype::bf16,
                   .bf16_bias = g.bias_dtype == Dtype::bf16,
                   .add = g.accumulate,
                   .gelu = g.activation == Epilogue::gelu_tanh};
    auto aligned = [](const void* p, int64_t ld, Dtype d) {
        return uintptr_t(p) % size_t(4 * size_of(d)) == 0 && ld % 4 == 0;
    };
    e.vector = aligned(g.C, g.ldc, g.out) && (!g.residual || aligned(g.residual, g.ldr, g.out)) &&
               (!g.bias || aligned(g.bias, 0, g.bias_dtype));
    return e;
}

__device__ __forceinline__ Floats<4> read4(const void* p, int64_t at, bool is_bf16, bool vector, int n) {
    const float* f = static_cast<const float*>(p) + at;
    const __nv_bfloat16* b = static_cast<const __nv_bfloat16*>(p) + at;
    if (vector && n == 4) return is_bf16 ? load<4>(b) : load<4>(f);
    Floats<4> v{};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < n) v[i] = is_bf16 ? to_float(b[i]) : f[i];
    return v;
}
__device__ __forceinline__ void write4(void* p, int64_t at, bool is_bf16, bool vector, int n, Floats<4> v) {
    float* f = static_cast<float*>(p) + at;
    __nv_bfloat16* b = static_cast<__nv_bfloat16*>(p) + at;
    if (vector && n == 4) return is_bf16 ? put<4>(b, v, false) : put<4>(f, v, false);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < n) {
            if (is_bf16)
                b[i] = from_float<__nv_bfloat16>(v[i]);
            else
                f[i] = v[i];
        }
}

/// Stores the sums of (row, col .. col + 3); what lies outside of C is left out.
__device__ __forceinline__ void finish(const CudaEpilogue& e, int row, int col, Floats<4> x) {
    int n = e.N - col;
    if (row >= e.M || n <= 0) return;
    if (n > 4) n = 4;
    if (e.bias) {
        Floats<4> bias = read4(e.bias, col, e.bf16_bias, e.vector, n);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = __fadd_rn(x[i], bias[i]);
    }
    if (e.gelu) {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = cuda_functions::GeluTanh::value(x[i]);
    }
    if (e.residual) {
        Floats<4> residual = read4(e.residual, row * e.ldr + col, e.bf16_out, e.vector, n);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = __fadd_rn(x[i], residual[i]);
    }
    if (e.add) {
        Floats<4> before = read4(e.c, row * e.ldc + col, e.bf16_out, e.vector, n);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = __fadd_rn(__fmul_rn(e.keep, before[i]), x[i]);
    }
    write4(e.c, row * e.ldc + col, e.bf16_out, e.vector, n, x);
}

/// Which tile a block computes: tiles are walked in groups of GROUP rows of tiles, column by column, so that
/// blocks which run at the same time share both operands in the L2 cache.
__device__ __forceinline__ void tile_of_block(int block, int tiles_m, int tiles_n, int& m, int& n) {
    constexpr int GROUP = 8;
    int first = block / (GROUP * tiles_n) * GROUP, height = min(GROUP, tiles_m - first);
    int within = block % (GROUP * tiles_n);
    m = first + within % height, n = within / height;
}

} // namespace nvl
