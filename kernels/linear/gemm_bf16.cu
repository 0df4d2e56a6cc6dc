// bf16 products on tensor cores (sm_80 and newer), whole matrices: the choice of tile, and which block
// computes which.
#include "kernels/linear/gemm_bf16.cuh"
#include "kernels/linear/gemm_kernels.cuh"

namespace nvl {

namespace {

using namespace bf16_tiles;

template <class T, bool A_DENSE_K, bool B_DENSE_K> __global__ void __launch_bounds__(T::THREADS)
    gemm_bf16_kernel(Operand A, Operand B, int K, CudaEpilogue e) {
    extern __shared__ __align__(128) float shared[];
    int m, n;
    tile_of_block(int(blockIdx.x), (e.M + T::BM - 1) / T::BM, (e.N + T::BN - 1) / T::BN, m, n);
    multiply_tile<T, A_DENSE_K, B_DENSE_K>(shared, A, B, K, m * T::BM, n * T::BN, e);
}
/// C = A A^T: the tiles up to the diagonal, row by row.
template <class T, bool DENSE_K> __global__ void __launch_bounds__(T::THREADS)
    gemm_symmetric_kernel(Operand A, int K, CudaEpilogue e) {
    extern __shared__ __align__(128) float shared[];
    int b = int(blockIdx.x), m = int((sqrtf(8.f * float(b) + 1) - 1) / 2);
    while (m * (m + 1) / 2 > b) m--; // the root may be rounded either way
    while ((m + 1) * (m + 2) / 2 <= b) m++;
    multiply_tile<T, DENSE_K, DENSE_K, true>(shared, A, A, K, m * T::BM, (b - m * (m + 1) / 2) * T::BN, e);
}

Operand operand(const void* data, int64_t ld, int64_t outers, int64_t inners) {
    return {static_cast<const __nv_bfloat16*>(data), ld, int(outers), int(inners),
            rows_start_at_16_bytes(data, ld, outers)};
}

template <class T, bool A_DENSE_K, bool B_DENSE_K>
void launch(const Operand& A, const Operand& B, int K, const CudaEpilogue& e) {
    constexpr auto kernel = gemm_bf16_kernel<T, A_DENSE_K, B_DENSE_K>;
    allow_shared<kernel>(T::BYTES);
    int64_t blocks = ceil_div(e.M, T::BM) * ceil_div(e.N, T::BN);
    kernel<<<unsigned(blocks), T::THREADS, T::BYTES, cuda_stream()>>>(A, B, K, e);
    check_launch("gemm_bf16");
}
template <class T> void launch_symmetric(const GemmArgs& g, const Operand& A, const CudaEpilogue& e) {
    int64_t tiles = ceil_div(e.M, T::BM);
    auto launch = [&]<bool DENSE_K>() {
        constexpr auto kernel = gemm_symmetric_kernel<T, DENSE_K>;
        allow_shared<kernel>(T::BYTES);
        kernel<<<unsigned(tiles * (tiles + 1) / 2), T::THREADS, T::BYTES, cuda_stream()>>>(A, int(g.K), e);
    };
    g.trans_a ? launch.template operator()<false>() : launch.template operator()<true>();
    check_launch("gemm_symmetric");
}

/// `FEW`: tiles for few rows are there for rows of A with dense k.
template <class T, bool FEW>
void launch_layout(const GemmArgs& g, const Operand& A, const Operand& B, const CudaEpilogue& e) {
    int K = int(g.K);
    if (!g.trans_a) return g.trans_b ? launch<T, true, true>(A, B, K, e) : launch<T, true, false>(A, B, K, e);
    if constexpr (!FEW)
        if (!g.trans_b) return launch<T, false, false>(A, B, K, e);
    if constexpr (T::ANY) return launch<T, false, true>(A, B, K, e);
    fail("gemm: this tile has no kernel for the layout"); // choose() does not ask for it
}

/// Large tiles where they give every multiprocessor one; otherwise more, smaller ones.
std::string choose(const GemmArgs& g, bool aligned) {
    if (!aligned || (g.trans_a && g.trans_b)) return "small"; // (K,M) times (N,K) is rare
    if (!g.trans_a && g.M <= Rows16::BM) return "rows16";
    if (!g.trans_a && g.M <= Rows64::BM) return "rows64";
    return ceil_div(g.M, Large::BM) * ceil_div(g.N, Large::BN) >= multiprocessors() ? "large" : "small";
}

} // namespace

void gemm_bf16_cuda(const GemmArgs& g, const CudaGemmOptions& o, const std::string& wanted) {
    Operand A = operand(g.A, g.lda, g.trans_a ? g.K : g.M, g.trans_a ? g.M : g.K);
    Operand B = operand(g.B, g.ldb, g.trans_b ? g.N : g.K, g.trans_b ? g.K : g.N);
    CudaEpilogue e = cuda_epilogue(g, o.keep);
    bool aligned = A.aligned && B.aligned;
    std::string tile = wanted == "auto" ? choose(g, aligned) : wanted;
    check(aligned || tile == "small", "gemm: operands that are not aligned to 16 bytes take the tile small");
    if (o.symmetric && (tile == "large" || tile == "small"))
        return tile == "large" ? launch_symmetric<Large>(g, A, e) : launch_symmetric<Small>(g, A, e);
    if (tile == "large") return launch_layout<Large, false>(g, A, B, e);
    if (tile == "rows16") return launch_layout<Rows16, true>(g, A, B, e);
    if (tile == "rows64") return launch_layout<Rows64, true>(g, A, B, e);
    check(tile == "small", "gemm: no tile \"%s\"; expected auto, large, small, rows16 or rows64",
          tile.c_str());
    launch_layout<Small, false>(g, A, B, e);
}

} // namespace nvl
