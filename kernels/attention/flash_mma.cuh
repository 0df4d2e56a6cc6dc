// Tiles of attention in bf16 on tensor cores. A warp owns 16 MF rows of the scores and of the sums, so that
// probabilities go from the registers of one product to those of the next.
//
//   scores (M, N) = A (M, K) B (N, K)^T          both operands in shared memory, K innermost
//   sums (M, COLS) += P (M, N) B (N, COLS)       P the scores, rounded to bf16
//
// N is 32: with 64, two fragments of rows and sums of 128 columns do not fit the registers, and with one
// fragment of rows every product of 16 x 8 x 16 reads 256 bytes of shared memory, as long as it takes itself.
#pragma once
#include "kernels/attention/flash.cuh"
#include "kernels/tile/mma.cuh"

namespace nvl::flash {

/// Addresses of the 16 x 16 parts of a swizzled tile with rows of 64 n columns: the swizzle is an exclusive
/// or of the chunk's low bits, so a part's address is this lane's base with a constant in it, and few
/// registers hold all addresses. The lane reads row `row` and chunk `chunk` (0 or 1) of a part.
template <int COLS> struct Parts {
    static_assert(COLS % 64 == 0);
    uint32_t base;
    __device__ __forceinline__ Parts(uint32_t tile, int row, int chunk)
        : base(tile + uint32_t(row * COLS * 2 + ((chunk ^ (row & 7)) << 4))) {}
    __device__ __forceinline__ uint32_t operator()(int row, int column) const { // multiples of 16
        return (base ^ uint32_t((column / 8 & 7) << 4)) + uint32_t(column / 64 * 128 + row * COLS * 2);
    }
};

/// SPLIT 2: two warps share rows and compute the same scores; each has half of the columns of the sums.
template <int MF, int WARPS, int ROWS_OF_B, int SPLIT = 1, int COLUMNS_OF_S = 32> struct MmaTile {
    using X = __nv_bfloat16;
    static constexpr int THREADS = 32 * WARPS, WARP_ROWS = 16 * MF, M = WARP_ROWS * WARPS / SPLIT;
    static constexpr int N = COLUMNS_OF_S;
    static constexpr int STEP = ROWS_OF_B; // rows of B in shared memory: some times N
    static constexpr int R = 2 * MF, C = N / 4, LANES = 4, SIDE = 2, PARTS = SPLIT,
                         SCRATCH = 0; // of a thread
    template <int ROWS, int COLS> struct Shared : SharedTile<ROWS, COLS> {
        static constexpr int ROWS_ = ROWS, COLUMNS = COLS;
    };

    template <int TILES> struct Fragments {
        static constexpr int COLUMNS = 2 * TILES;
        FragC c[MF][TILES];
        __device__ __forceinline__ float& at(int i, int j) { return c[i / 2][j / 2].r[i % 2 * 2 + j % 2]; }
        __device__ __forceinline__ float at(int i, int j) const {
            return c[i / 2][j / 2].r[i % 2 * 2 + j % 2];
        }
        __device__ __forceinline__ void clear() {
#pragma unroll
            for (int i = 0; i < MF; i++)
#pragma unroll
                for (int j = 0; j < TILES; j++) c[i][j] = {};
        }
    };
    using Scores = Fragments<N / 8>;
    template <int COLS> using Sums = Fragments<COLS / 8>;

    __device__ __forceinline__ static int lane() { return int(threadIdx.x) & 31; }
    __device__ __forceinline__ static int warp() { return int(threadIdx.x) / 32; }
    __device__ __forceinline__ static int warp_row() { return warp() % (WARPS / SPLIT) * WARP_ROWS; }
    __device__ __forceinline__ static int part() { return warp() / (WARPS / SPLIT); }
    /// Row of the tile that a thread's row i is, column of the tile that its column j is.
    __device__ __forceinline__ static int row(int i) {
        return warp_row() + i / 2 * 16 + i % 2 * 8 + lane() / 4;
    }
    __device__ __forceinline__ static constexpr int apart(int j) { return j / 2 * 8 + j % 2; }
    __device__ __forceinline__ static int column(int j) { return lane() % 4 * 2 + apart(j); }
    template <int COLS> __device__ __forceinline__ static int sum_column(int j) { return column(j); }

    template <int RA, int RB, int K>
    __device__ __forceinline__ static void scores(Scores& s, Shared<RA, K> a, Shared<RB, K> b, int row0) {
        int lane = thread_again() & 31;
        Parts<K> at_a(a.base, warp_row() + (lane & 15), lane >> 4);
        Parts<K> at_b(b.base, row0 + (lane >> 4) * 8 + (lane & 7), lane >> 3 & 1);
        s.clear();
#pragma unroll 2 // all steps at once cost registers
        for (int k = 0; k < K; k += 16) {
            FragA fa[MF];
#pragma unroll
            for (int i = 0; i < MF; i++) load_matrices(fa[i].r, at_a(16 * i, k));
#pragma unroll
            for (int j = 0; j < N / 16; j++) {
                uint32_t r[4];
                load_matrices(r, at_b(16 * j, k));
                FragB left{{r[0], r[1]}}, right{{r[2], r[3]}};
#pragma unroll
                for (int i = 0; i < MF; i++)
                    mma(s.c[i][2 * j], fa[i], left), mma(s.c[i][2 * j + 1], fa[i], right);
            }
        }
    }
    /// Rows [row0, row0 + N) and columns [column0, column0 + COLS) of b.
    template <int COLS, int RB, int CB> __device__ __forceinline__ static void
    accumulate(Sums<COLS>& o, const Scores& p, Shared<RB, CB> b, int row0, int column0, float*) {
        int lane = thread_again() & 31;
        Parts<CB> at_b(b.base, row0 + (lane & 15), lane >> 4);
#pragma unroll
        for (int k = 0; k < N / 16; k++) {
            FragA fa[MF];
#pragma unroll
            for (int i = 0; i < MF; i++) fa[i] = as_a(p.c[i][2 * k], p.c[i][2 * k + 1]);
#pragma unroll
            for (int j = 0; j < COLS / 16; j++) {
                uint32_t r[4];
                load_matrices_transposed(r, at_b(16 * k, column0 + 16 * j));
                FragB left{{r[0], r[1]}}, right{{r[2], r[3]}};
#pragma unroll
                for (int i = 0; i < MF; i++)
                    mma(o.c[i][2 * j], fa[i], left), mma(o.c[i][2 * j + 1], fa[i], right);
            }
        }
    }
    template <int COLS> __device__ __forceinline__ static void stage(float* to, const Sums<COLS>& o,
                                                                     const float (&scale)[R], int ld) {
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < COLS / 4; j += 2)
                *reinterpret_cast<float2*>(to + (row(i) - warp_row()) * ld + column(j)) =
                    make_float2(o.at(i, j) * scale[i], o.at(i, j + 1) * scale[i]);
    }
};

} // namespace nvl::flash
