// The kernels behind cuda_gemm(), one per kind of operands; arguments are checked and filled in.
#pragma once
#include <string>

#include "kernels/linear/gemm_cuda.h"
#include "kernels/linear/gemm_epilogue.cuh"

namespace nvl {

/// `tile`: see set_cuda_gemm_tile.
void gemm_bf16_cuda(const GemmArgs& g, const CudaGemmOptions& o, const std::string& tile);
void gemm_f32_cuda(const GemmArgs& g, const CudaGemmOptions& o, const std::string& tile);
void gemm_cublaslt(const GemmArgs& g, float keep);

/// bf16 operands aligned to 16 bytes on sm_90a; null in a build without that architecture.
using HopperGemm = void (*)(const GemmArgs& g, const CudaGemmOptions& o);
HopperGemm& gemm_hopper();

} // namespace nvl
