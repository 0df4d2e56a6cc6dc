// bf16 products on Hopper: one warp fetches boxes of A and B by TMA into STAGES slots, two warpgroups
// multiply them with wgmma, 128 x 128 elements each. Blocks are persistent, so the next tile's copies run
// under the epilogue of this one.
//
// NVL_GEMM=hopper chooses it for all operands aligned to 16 bytes, whatever the number of rows: an element is
// one chain over ascending k here too, but possibly not with the bits of mma.sync, and decode must equal
// prefill.
#include <cuda.h>

#include <algorithm>

#include "engine/device/cuda.h"
#include "kernels/linear/gemm_kernels.cuh"
#include "kernels/tile/mma.cuh"
#include "kernels/tile/pipeline.cuh"
#include "kernels/tile/tma.cuh"
#include "kernels/tile/wgmma.cuh"

namespace nvl {

namespace {

constexpr int BM = 256, BN = 128, BK = 64, STAGES = 4, CONSUMERS = 2;
constexpr int THREADS = 128 * (1 + CONSUMERS);
constexpr int BYTES_A = BM * BK * 2, BYTES_B = BN * BK * 2, STAGE_BYTES = BYTES_A + BYTES_B;
constexpr int PANEL = 64 * BK * 2;                        // 64 rows of an operand
constexpr int RESULT_BYTES = 4 * CONSUMERS * 16 * 64 * 4; // 16 x 64 sums of each warp
constexpr int SHARED = 1024 + STAGES * STAGE_BYTES + RESULT_BYTES + 2 * STAGES * 8;
static_assert(SHARED <= 227 << 10);

/// Where things lie in shared memory, from a multiple of 1024 on: slots, results, barriers.
struct Layout {
    uint32_t base;
    __device__ uint32_t a(int slot) const { return base + uint32_t(slot * STAGE_BYTES); }
    __device__ uint32_t b(int slot) const { return a(slot) + BYTES_A; }
    __device__ uint32_t full(int slot) const {
        return base + STAGES * STAGE_BYTES + RESULT_BYTES + uint32_t(8 * slot);
    }
    __device__ uint32_t empty(int slot) const { return full(slot) + 8 * STAGES; }
};
/// A slot and the parity of its use.
struct Turn {
    int slot = 0, phase = 0;
    __device__ void next() {
        if (++slot == STAGES) slot = 0, phase ^= 1;
    }
};

/// One operand's part of a stage: boxes of 64 elements of k (dense k), or of 64 rows each (dense rows).
template <bool DENSE_K, int ROWS>
__device__ __forceinline__ void fetch(uint32_t to, const CUtensorMap& map, int row, int k, uint32_t barrier) {
    if constexpr (DENSE_K) {
        copy_box(to, map, k, row, barrier);
    } else {
#pragma unroll
        for (int p = 0; p < ROWS / 64; p++) copy_box(to + p * PANEL, map, row + 64 * p, k, barrier);
    }
}

template <bool A_DENSE_K, bool B_DENSE_K> struct Worker {
    Layout at;
    int K, tiles_m, tiles_n;
    __device__ int stages() const { return (K + BK - 1) / BK; }

    __device__ __forceinline__ void produce(const CUtensorMap& A, const CUtensorMap& B) const {
        Turn turn;
        for (int tile = int(blockIdx.x); tile < tiles_m * tiles_n; tile += int(gridDim.x)) {
            int m, n;
            tile_of_block(tile, tiles_m, tiles_n, m, n);
            for (int s = 0; s < stages(); s++, turn.next()) {
                barrier_wait(at.empty(turn.slot), turn.phase ^ 1);
                barrier_expect(at.full(turn.slot), STAGE_BYTES);
                fetch<A_DENSE_K, BM>(at.a(turn.slot), A, m * BM, s * BK, at.full(turn.slot));
                fetch<B_DENSE_K, BN>(at.b(turn.slot), B, n * BN, s * BK, at.full(turn.slot));
            }
        }
    }

    /// 64 terms of k. Dense k: 16 of them are 32 bytes of each row; dense rows: 16 rows of memory.
    __device__ __forceinline__ void multiply(float (&c)[2][64], int slot, int warpgroup) const {
        constexpr uint32_t STEP_A = A_DENSE_K ? 32 : 16 * 128, STEP_B = B_DENSE_K ? 32 : 16 * 128;
#pragma unroll
        for (int k = 0; k < BK / 16; k++) {
            uint64_t b = wgmma_operand(at.b(slot) + k * STEP_B, B_DENSE_K ? 0 : PANEL);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint32_t a = at.a(slot) + uint32_t(2 * warpgroup + i) * PANEL + k * STEP_A;
                wgmma_64x128x16<A_DENSE_K, B_DENSE_K>(c[i], wgmma_operand(a, A_DENSE_K ? 0 : PANEL), b);
            }
        }
    }

    /// 16 x 64 sums of this warp at a time, through its own shared memory: rows go to memory then.
    __device__ __forceinline__ void store(const float (&c)[2][64], float* result, int m0, int n0,
                                          const CudaEpilogue& e) const {
        int lane = int(threadIdx.x) & 31, g = lane >> 2, t = lane & 3;
        auto place = [](int row, int col) { return row * 64 + (col ^ (row & 3) * 8); }; // no bank conflicts
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                __syncwarp();
#pragma unroll
                for (int j = 0; j < 8; j++)
#pragma unroll
                    for (int low = 0; low < 2; low++) {
                        const float* two = &c[i][4 * (8 * half + j) + 2 * low];
                        store_pair(result + place(g + 8 * low, 8 * j + 2 * t), two[0], two[1]);
                    }
                __syncwarp();
#pragma unroll 1
                for (int q = lane; q < 16 * 16; q += 32)
                    finish(e, m0 + 64 * i + q / 16, n0 + 64 * half + q % 16 * 4,
                           load<4>(result + place(q / 16, q % 16 * 4)));
            }
    }

    __device__ __forceinline__ void consume(int warpgroup, float* result, const CudaEpilogue& e) const {
        int warp = int(threadIdx.x) % 128 / 32;
        bool speaks = threadIdx.x % 128 == 0; // for its warpgroup, to the producer
        Turn turn;
        for (int tile = int(blockIdx.x); tile < tiles_m * tiles_n; tile += int(gridDim.x)) {
            int m, n;
            tile_of_block(tile, tiles_m, tiles_n, m, n);
            float c[2][64] = {};
            int before = -1; // the slot whose products may still run
            for (int s = 0; s < stages(); s++, turn.next()) {
                barrier_wait(at.full(turn.slot), turn.phase);
                wgmma_fence();
                multiply(c, turn.slot, warpgroup);
                wgmma_commit();
                wgmma_wait<1>();
                if (before >= 0 && speaks) barrier_arrive(at.empty(before));
                before = turn.slot;
            }
            wgmma_wait<0>();
            wgmma_settled(c[0]), wgmma_settled(c[1]);
            if (before >= 0 && speaks) barrier_arrive(at.empty(before));
            store(c, result, m * BM + 128 * warpgroup + 16 * warp, n * BN, e);
        }
    }
};

template <bool A_DENSE_K, bool B_DENSE_K> __global__ void __launch_bounds__(THREADS, 1)
    gemm_sm90a_kernel(const __grid_constant__ CUtensorMap A, const __grid_constant__ CUtensorMap B, int K,
                      CudaEpilogue e) {
    extern __shared__ uint8_t shared[];
    uint32_t start = shared_address(shared), skip = (1024 - start % 1024) % 1024;
    Layout at{start + skip};
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) barrier_init(at.full(s), 1), barrier_init(at.empty(s), CONSUMERS);
        fence_barriers();
    }
    __syncthreads();
    Worker<A_DENSE_K, B_DENSE_K> work{at, K, (e.M + BM - 1) / BM, (e.N + BN - 1) / BN};
    int warpgroup = int(threadIdx.x) / 128 - 1;
    if (warpgroup < 0) {
        fewer_registers<40>();
        if (threadIdx.x == 0) work.produce(A, B);
    } else {
        more_registers<232>();
        float* result = reinterpret_cast<float*>(shared + skip + STAGES * STAGE_BYTES) +
                        (int(threadIdx.x) / 32 - 4) * 16 * 64;
        work.consume(warpgroup, result, e);
    }
}

using Encode = decltype(&cuTensorMapEncodeTiled);
Encode encoder() {
    static const Encode encode = [] {
        void* entry = nullptr;
        cudaDriverEntryPointQueryResult found{};
        cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                    cudaEnableDefault, &found),
                   "gemm: asking the driver for tensor maps");
        check(entry && found == cudaDriverEntryPointSuccess,
              "gemm: this driver knows no tensor maps; use NVL_GEMM=own");
        return reinterpret_cast<Encode>(entry);
    }();
    return encode;
}

/// Of an operand with `outers` rows of `inners` dense elements.
CUtensorMap tensor_map(const void* data, int64_t ld, int64_t outers, int64_t inners, int box_outer) {
    CUtensorMap map;
    cuuint64_t extent[2] = {cuuint64_t(inners), cuuint64_t(outers)}, stride[1] = {cuuint64_t(ld) * 2};
    cuuint32_t box[2] = {64, cuuint32_t(box_outer)}, step[2] = {1, 1};
    CUresult status = encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), extent,
                                stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    check(status == CUDA_SUCCESS, "gemm: a tensor map of %ld x %ld at distance %ld was refused (%d)",
          long(outers), long(inners), long(ld), int(status));
    return map;
}

template <bool A_DENSE_K, bool B_DENSE_K> void launch(const GemmArgs& g, const CudaEpilogue& e) {
    auto kernel = gemm_sm90a_kernel<A_DENSE_K, B_DENSE_K>;
    static const cudaError_t allowed =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    cuda_check(allowed, "gemm: shared memory of a tile");
    CUtensorMap A = A_DENSE_K ? tensor_map(g.A, g.lda, g.M, g.K, BM) : tensor_map(g.A, g.lda, g.K, g.M, BK);
    CUtensorMap B = B_DENSE_K ? tensor_map(g.B, g.ldb, g.N, g.K, BN) : tensor_map(g.B, g.ldb, g.K, g.N, BK);
    int64_t tiles = ceil_div(g.M, BM) * ceil_div(g.N, BN);
    kernel<<<unsigned(std::min<int64_t>(tiles, multiprocessors())), THREADS, SHARED, cuda_stream()>>>(
        A, B, int(g.K), e);
    check_launch("gemm_sm90a");
}

void gemm_sm90a(const GemmArgs& g, const CudaGemmOptions& o) {
    CudaEpilogue e = cuda_epilogue(g, o.keep);
    if (g.trans_a)
        g.trans_b ? launch<false, true>(g, e) : launch<false, false>(g, e);
    else
        g.trans_b ? launch<true, true>(g, e) : launch<true, false>(g, e);
}

const bool registered = (gemm_hopper() = gemm_sm90a, true);

} // namespace

} // namespace nvl
