// f32 products, whole matrices.
#include "engine/device/cuda.h"
#include "kernels/linear/gemm_f32.cuh"
#include "kernels/linear/gemm_kernels.cuh"

namespace nvl {

namespace {

using namespace f32_tiles;

template <class T> __global__ void __launch_bounds__(T::THREADS)
    gemm_f32_kernel(Operand A, Operand B, CudaEpilogue e) {
    int m, n;
    tile_of_block(int(blockIdx.x), (e.M + T::BM - 1) / T::BM, (e.N + T::BN - 1) / T::BN, m, n);
    multiply_tile<T>(A, B, m * T::BM, n * T::BN, e);
}

Operand operand(const void* data, int64_t ld, int64_t rows, int64_t K, bool dense_rows) {
    bool vector = rows_start_at_16_bytes(data, ld, dense_rows ? K : rows);
    return {static_cast<const float*>(data), ld, int(rows), int(K), dense_rows, vector};
}

template <class T> void launch(const GemmArgs& g, float keep) {
    Operand A = operand(g.A, g.lda, g.M, g.K, g.trans_a), B = operand(g.B, g.ldb, g.N, g.K, !g.trans_b);
    int64_t blocks = ceil_div(g.M, T::BM) * ceil_div(g.N, T::BN);
    gemm_f32_kernel<T><<<unsigned(blocks), T::THREADS, 0, cuda_stream()>>>(A, B, cuda_epilogue(g, keep));
    check_launch("gemm_f32");
}

} // namespace

void gemm_f32_cuda(const GemmArgs& g, const CudaGemmOptions& o, const std::string& wanted) {
    bool fills = ceil_div(g.M, Large::BM) * ceil_div(g.N, Large::BN) >= multiprocessors();
    bool large = wanted == "large" || (wanted == "auto" && fills);
    large ? launch<Large>(g, o.keep) : launch<Small>(g, o.keep);
}

} // namespace nvl
