// One tile of an f32 product on the ordinary cores: true f32, each element one chain of fma over ascending k.
// A block of threads keeps (4 GM) x (4 GN) sums per thread; the next 8 terms wait in registers while the
// present ones are computed on.
#pragma once
#include "kernels/linear/gemm_epilogue.cuh"

namespace nvl {

namespace f32_tiles {

constexpr int BK = 8;

/// BM x BN per block of 16 x (BM / (4 GM)) threads; a thread has GM x GN groups of 4 x 4 elements.
template <int BM_, int BN_, int GM_, int GN_> struct Tile {
    static constexpr int BM = BM_, BN = BN_, GM = GM_, GN = GN_, THREADS = 16 * BM / (4 * GM);
    static_assert(BN == 64 * GN && BM * BK % (4 * THREADS) == 0);
};
using Large = Tile<128, 128, 2, 2>; // 256 threads
using Small = Tile<64, 64, 2, 1>;   // 128 threads

/// (rows, k): element (r, k) at r * ld + k, or at k * ld + r if `dense_rows`.
struct Operand {
    const float* data;
    int64_t ld;
    int rows, K;
    bool dense_rows, vector; // vector: four dense elements from a multiple of 4 are one aligned access
};

/// Four dense elements from (outer, inner); zeros outside.
__device__ __forceinline__ Floats<4> read(const Operand& o, int outer, int inner) {
    int outers = o.dense_rows ? o.K : o.rows, n = (o.dense_rows ? o.rows : o.K) - inner;
    Floats<4> v{};
    if (outer >= outers || n <= 0) return v;
    const float* p = o.data + outer * o.ld + inner;
    if (o.vector && n >= 4) return load<4>(p);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < n) v[i] = p[i];
    return v;
}

/// ROWS x BK of an operand: from memory to registers, then to shared memory as [k][row]. Rows of ROWS + 4
/// floats: neither way of storing has bank conflicts.
template <int ROWS, int THREADS> struct Part {
    static constexpr int COUNT = ROWS * BK / (4 * THREADS), ROW = ROWS + 4;
    Floats<4> v[COUNT];
    __device__ __forceinline__ void fetch(const Operand& o, int row0, int k0) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int at = int(threadIdx.x) + i * THREADS;
            v[i] = o.dense_rows ? read(o, k0 + at / (ROWS / 4), row0 + at % (ROWS / 4) * 4)
                                : read(o, row0 + at / (BK / 4), k0 + at % (BK / 4) * 4);
        }
    }
    __device__ __forceinline__ void put(const Operand& o, float* shared) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int at = int(threadIdx.x) + i * THREADS;
            if (o.dense_rows) {
                store<4>(shared + at / (ROWS / 4) * ROW + at % (ROWS / 4) * 4, v[i]);
            } else {
                float* to = shared + at % (BK / 4) * 4 * ROW + at / (BK / 4);
#pragma unroll
                for (int j = 0; j < 4; j++) to[j * ROW] = v[i][j];
            }
        }
    }
};

/// GROUPS x 4 elements of row k, `apart` between the groups.
template <int GROUPS>
__device__ __forceinline__ void read_groups(float (&v)[4 * GROUPS], const float* row, int apart) {
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        Floats<4> four = load<4>(row + g * apart);
#pragma unroll
        for (int i = 0; i < 4; i++) v[4 * g + i] = four[i];
    }
}

/// The tile of C at (m0, n0), by all threads of a block.
template <class T> __device__ __forceinline__ void multiply_tile(const Operand& A, const Operand& B, int m0,
                                                                 int n0, const CudaEpilogue& e) {
    constexpr int ROW_A = T::BM + 4, ROW_B = T::BN + 4;
    __shared__ __align__(16) float sA[2][BK * ROW_A], sB[2][BK * ROW_B];
    int y = int(threadIdx.x) / 16 * 4, x = int(threadIdx.x) % 16 * 4;
    Part<T::BM, T::THREADS> a;
    Part<T::BN, T::THREADS> b;
    float c[4 * T::GM][4 * T::GN] = {};
    a.fetch(A, m0, 0), b.fetch(B, n0, 0);
    for (int k0 = 0, slot = 0; k0 < A.K; k0 += BK, slot ^= 1) {
        a.put(A, sA[slot]), b.put(B, sB[slot]);
        __syncthreads();
        if (k0 + BK < A.K) a.fetch(A, m0, k0 + BK), b.fetch(B, n0, k0 + BK);
#pragma unroll
        for (int k = 0; k < BK; k++) {
            float rA[4 * T::GM], rB[4 * T::GN];
            read_groups<T::GM>(rA, sA[slot] + k * ROW_A + y, T::BM / T::GM);
            read_groups<T::GN>(rB, sB[slot] + k * ROW_B + x, 64);
#pragma unroll
            for (int i = 0; i < 4 * T::GM; i++)
#pragma unroll
                for (int j = 0; j < 4 * T::GN; j++) c[i][j] = __fmaf_rn(rA[i], rB[j], c[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4 * T::GM; i++)
#pragma unroll
        for (int g = 0; g < T::GN; g++)
            finish(e, m0 + i / 4 * (T::BM / T::GM) + y + i % 4, n0 + 64 * g + x,
                   {c[i][4 * g], c[i][4 * g + 1], c[i][4 * g + 2], c[i][4 * g + 3]});
}

inline bool rows_start_at_16_bytes(const void* data, int64_t ld, int64_t outers) {
    return uintptr_t(data) % 16 == 0 && (outers <= 1 || ld % 4 == 0);
}

} // namespace f32_tiles

} // namespace nvl
