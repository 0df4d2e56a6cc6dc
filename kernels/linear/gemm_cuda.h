// gemm() on the GPU: the same arguments with device pointers, on cuda_stream(). For .cu files.
//
// An element is one chain over ascending k, whatever M, N, the layouts, the tile or the number of rows in the
// batch:
//   bf16  c = mma(16 terms, c) from c = 0: tensor cores with f32 sums (kernels/tile/mma.cuh)
//   f32   c = fma(a_k, b_k, c) from c = 0: true f32, no TF32
// then + bias, activation, + residual, C + x, each one f32 operation; the store rounds once. So a token's
// bits are the same alone and in a batch. They are not the CPU's bits, and cuBLASLt's are its own.
#pragma once
#include <string>

#include "kernels/linear/matrix.h"

namespace nvl {

struct CudaGemmOptions {
    float keep = 1; // C = (accumulate ? keep C : 0) + ...: for Muon
    bool symmetric =
        false; // of A A^T (bf16) only the tiles up to the diagonal are computed, and mirrored: same bits
};

/// No packed weights, no swiglu, no leaves.
void cuda_gemm(const GemmArgs& args, const CudaGemmOptions& options = {});

/// c (M,N) from a (M,K) and b (K,N).
inline void cuda_product(Matrix c, Matrix a, Matrix b, const ProductOptions& o = {},
                         const CudaGemmOptions& cuda = {}) {
    cuda_gemm(product_args(c, a, b, o), cuda);
}

/// "own" (the default), "cublaslt" or "hopper" (bf16 by TMA and wgmma on sm_90a); the environment variable
/// NVL_GEMM names the first choice.
std::string cuda_gemm_backend();
void set_cuda_gemm_backend(const std::string& name);
bool cuda_gemm_has_hopper(); // whether this build has kernels for sm_90a
/// Tests and benchmarks: "auto", "large", "small", and of bf16 "rows16", "rows64". The bits are the same.
void set_cuda_gemm_tile(const std::string& name);

} // namespace nvl
