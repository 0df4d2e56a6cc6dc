// One tile of a bf16 product on tensor cores (sm_80 and newer): tiles of A and B come through cp.async in
// STAGES slots, fragments through ldmatrix one step ahead of the mma that uses them. The dense dimension of
// each operand may be k or the other one; ldmatrix transposes where needed, so nothing is rearranged in
// memory.
#pragma once
#include "engine/device/cuda.h"
#include "kernels/linear/gemm_epilogue.cuh"
#include "kernels/tile/mma.cuh"

namespace nvl {

namespace bf16_tiles {

/// BM x BN elements per block, of which a warp has WM x WN; BK terms per stage. ANY: operands of any
/// alignment.
template <int BM_, int BN_, int BK_, int WM_, int WN_, int STAGES_, bool ANY_> struct Tile {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr bool ANY = ANY_;
    static constexpr int THREADS = 32 * (BM / WM) * (BN / WN);
    static constexpr int STAGE_BYTES = (BM + BN) * BK * 2;
    static constexpr int RESULT_BYTES = BM * BN * 4;
    static constexpr int BYTES = STAGE_BYTES * STAGES > RESULT_BYTES ? STAGE_BYTES* STAGES : RESULT_BYTES;
};
using Large = Tile<128, 128, 32, 64, 64, 4, false>; // 2 blocks per multiprocessor: 64 KiB, 128 threads
using Small = Tile<64, 64, 32, 32, 32, 4, true>;
// Few rows: what counts is to read B at the speed of memory, so there are many narrow blocks, each with 24 to
// 40 KiB of it on the way.
using Rows16 = Tile<16, 32, 128, 16, 16, 6, false>;
using Rows64 = Tile<64, 32, 128, 16, 32, 4, false>;

/// An operand as it lies in memory: `outers` rows of `inners` dense elements.
struct Operand {
    const __nv_bfloat16* data;
    int64_t ld;
    int outers, inners;
    bool aligned; // rows start at multiples of 16 bytes
};

/// Up to 8 elements that cp.async cannot move.
__device__ __forceinline__ void copy_elements(uint32_t to, const __nv_bfloat16* from, int valid) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(from);
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t low = 2 * i < valid ? p[2 * i] : 0, high = 2 * i + 1 < valid ? p[2 * i + 1] : 0;
        word[i] = low | high << 16;
    }
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]),
                 "r"(word[3])
                 : "memory");
}

/// The part at (outer0, inner0); zeros beyond the operand.
template <int THREADS, bool ANY, int OUTER, int INNER> __device__ __forceinline__ void
copy_tile(SharedTile<OUTER, INNER> to, const Operand& from, int outer0, int inner0) {
    constexpr int CHUNKS = INNER / 8, STEP = THREADS / CHUNKS; // rows between a thread's chunks
    static_assert(THREADS % CHUNKS == 0 && OUTER % STEP == 0);
    int row = int(threadIdx.x) / CHUNKS, chunk = int(threadIdx.x) % CHUNKS;
    int left = from.outers - outer0 - row, inner = inner0 + chunk * 8;
    int valid = min(max(from.inners - inner, 0), 8);
    const __nv_bfloat16* p = from.data + (outer0 + row) * from.ld + inner;
    uint32_t first = to.at(row, chunk);
#pragma unroll
    for (int i = 0; i < OUTER / STEP; i++, p += STEP * from.ld) {
        int n = i * STEP < left ? valid : 0;
        uint32_t at = STEP % 8 == 0 ? first + i * STEP * INNER * 2 : to.at(row + i * STEP, chunk);
        if (ANY && !from.aligned)
            copy_elements(at, p, n);
        else
            copy16(at, p, 2 * n);
    }
}

template <class T, bool A_DENSE_K, bool B_DENSE_K> struct Stage {
    SharedTile<A_DENSE_K ? T::BM : T::BK, A_DENSE_K ? T::BK : T::BM> a;
    SharedTile<B_DENSE_K ? T::BN : T::BK, B_DENSE_K ? T::BK : T::BN> b;
    __device__ __forceinline__ Stage(uint32_t shared, int slot)
        : a{shared + uint32_t(slot * T::STAGE_BYTES)}, b{a.base + uint32_t(T::BM * T::BK * 2)} {}
    __device__ __forceinline__ void copy(const Operand& A, const Operand& B, int m0, int n0, int k0) const {
        copy_tile<T::THREADS, T::ANY>(a, A, A_DENSE_K ? m0 : k0, A_DENSE_K ? k0 : m0);
        copy_tile<T::THREADS, T::ANY>(b, B, B_DENSE_K ? n0 : k0, B_DENSE_K ? k0 : n0);
    }
};

/// The operands of one step of 16 terms for one warp.
template <class T, bool A_DENSE_K, bool B_DENSE_K> struct Fragments {
    FragA a[T::WM / 16];
    FragB b[T::WN / 8];
    __device__ __forceinline__ void load(const Stage<T, A_DENSE_K, B_DENSE_K>& s, int m, int n, int k) {
#pragma unroll
        for (int i = 0; i < T::WM / 16; i++)
            a[i] = A_DENSE_K ? load_a(s.a, m + 16 * i, k) : load_a_transposed(s.a, m + 16 * i, k);
#pragma unroll
        for (int j = 0; j < T::WN / 8; j += 2) {
            if (B_DENSE_K)
                load_b(b[j], b[j + 1], s.b, n + 8 * j, k);
            else
                load_b_transposed(b[j], b[j + 1], s.b, n + 8 * j, k);
        }
    }
};

/// Where the sum at (row, col) waits: some bits of the row move its columns, so that neither fragments nor
/// rows have bank conflicts.
template <class T, bool TRANSPOSED> __device__ __forceinline__ int place(int row, int col) {
    return row * T::BN + (col ^ ((TRANSPOSED ? row >> 1 : row) & 3) * 8);
}
/// The sums of a warp, to shared memory: C[m + row][n + col] goes to place(row, col). Or C^T.
template <class T, bool TRANSPOSED> __device__ __forceinline__ void
share_sums(float* result, const FragC (&c)[T::WM / 16][T::WN / 8], int m, int n) {
    int g = (int(threadIdx.x) & 31) >> 2, t = int(threadIdx.x) & 3;
#pragma unroll
    for (int i = 0; i < T::WM / 16; i++)
#pragma unroll
        for (int j = 0; j < T::WN / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int row = m + 16 * i + 8 * half + g, col = n + 8 * j + 2 * t;
                float first = c[i][j].r[2 * half], second = c[i][j].r[2 * half + 1];
                if (TRANSPOSED) {
                    result[place<T, true>(col, row)] = first;
                    result[place<T, true>(col + 1, row)] = second;
                } else
                    store_pair(result + place<T, false>(row, col), first, second);
            }
}
/// Whole rows to memory.
template <class T, bool TRANSPOSED>
__device__ __forceinline__ void finish_tile(const float* result, int m0, int n0, const CudaEpilogue& e) {
#pragma unroll 1
    for (int at = int(threadIdx.x); at < T::BM * T::BN / 4; at += T::THREADS) {
        int row = at / (T::BN / 4), col = at % (T::BN / 4) * 4;
        finish(e, m0 + row, n0 + col, load<4>(result + place<T, TRANSPOSED>(row, col)));
    }
}

/// The tile of C at (m0, n0), by all threads of a block; T::BYTES of shared memory. MIRROR: and the one at
/// (n0, m0), of a C that is symmetric.
template <class T, bool A_DENSE_K, bool B_DENSE_K, bool MIRROR = false>
__device__ __forceinline__ void multiply_tile(float* shared, const Operand& A, const Operand& B, int K,
                                              int m0, int n0, const CudaEpilogue& e) {
    static_assert(!MIRROR || T::BM == T::BN);
    uint32_t base = shared_address(shared);
    int warp = int(threadIdx.x) >> 5, m = warp / (T::BN / T::WN) * T::WM, n = warp % (T::BN / T::WN) * T::WN;
    using S = Stage<T, A_DENSE_K, B_DENSE_K>;
    constexpr int STEPS = T::BK / 16;
    const int stages = (K + T::BK - 1) / T::BK;
#pragma unroll
    for (int s = 0; s < T::STAGES; s++) {
        if (s < stages) S(base, s).copy(A, B, m0, n0, s * T::BK);
        copy_commit();
    }
    copy_wait<T::STAGES - 1>();
    __syncthreads();

    FragC c[T::WM / 16][T::WN / 8] = {};
    Fragments<T, A_DENSE_K, B_DENSE_K> f[2];
    if (stages) f[0].load(S(base, 0), m, n, 0);
    int slot = 0;
    for (int s = 0; s < stages; s++) {
        S now(base, slot), next(base, slot + 1 == T::STAGES ? 0 : slot + 1);
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            if (step + 1 < STEPS)
                f[(step + 1) % 2].load(now, m, n, 16 * (step + 1));
            else { // `now` is in registers: its slot is refilled, and the next stage begins
                copy_wait<T::STAGES - 2>();
                __syncthreads();
                if (s + T::STAGES < stages) now.copy(A, B, m0, n0, (s + T::STAGES) * T::BK);
                copy_commit();
                if (s + 1 < stages) f[0].load(next, m, n, 0);
            }
#pragma unroll
            for (int i = 0; i < T::WM / 16; i++)
#pragma unroll
                for (int j = 0; j < T::WN / 8; j++) mma(c[i][j], f[step % 2].a[i], f[step % 2].b[j]);
        }
        slot = slot + 1 == T::STAGES ? 0 : slot + 1;
    }
    copy_wait<0>();
    __syncthreads();
    share_sums<T, false>(shared, c, m, n);
    __syncthreads();
    finish_tile<T, false>(shared, m0, n0, e);
    if constexpr (MIRROR) {
        if (m0 == n0) return; // a tile on the diagonal is whole
        __syncthreads();
        share_sums<T, true>(shared, c, m, n);
        __syncthreads();
        finish_tile<T, true>(shared, n0, m0, e);
    }
}

/// What a launch needs: shared memory beyond 48 KiB has to be asked for, once per kernel.
template <auto KERNEL> void allow_shared(int bytes) {
    static const cudaError_t allowed =
        bytes > 48 << 10 ? cudaFuncSetAttribute(KERNEL, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)
                         : cudaSuccess;
    cuda_check(allowed, "gemm: shared memory of a tile");
}
inline bool rows_start_at_16_bytes(const void* data, int64_t ld, int64_t outers) {
    return uintptr_t(data) % 16 == 0 && (outers <= 1 || ld % 8 == 0);
}

} // namespace bf16_tiles

} // namespace nvl
