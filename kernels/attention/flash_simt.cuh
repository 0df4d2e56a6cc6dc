// Tiles of attention in f32: exact f32 products by fused multiply-adds, d or keys in order. 16 neighbouring
// threads share 4 rows; a thread has 2 columns of the scores (16 apart) and 4 neighbouring columns of every
// 64 of the sums.
#pragma once
#include "kernels/attention/flash.cuh"

namespace nvl::flash {

template <int ROWS> struct SimtTile {
    using X = float;
    static constexpr int M = ROWS, N = 32, STEP = N, THREADS = 4 * M, WARP_ROWS = 8;
    static constexpr int R = 4, C = 2, LANES = 16, SIDE = 4, PARTS = 1;
    static constexpr int LDP = N + 4,
                         SCRATCH = M * LDP; // floats for probabilities on their way between threads

    /// Rows padded by 16 bytes: 8 rows of one column of chunks lie in all banks.
    template <int ROWS_IN, int COLS> struct Shared {
        static constexpr int ROWS_ = ROWS_IN, COLUMNS = COLS, LD = COLS + 4, BYTES = ROWS_ * LD * 4;
        uint32_t base;
        __device__ __forceinline__ uint32_t at(int row, int chunk) const {
            return base + uint32_t(row * LD + chunk * 4) * 4;
        }
        __device__ __forceinline__ float4 get(int row, int column) const {
            float4 v;
            asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                         : "r"(base + uint32_t(row * LD + column) * 4)
                         : "memory");
            return v;
        }
    };

    template <int COLS> struct Values {
        static constexpr int COLUMNS = COLS;
        float x[R][COLS];
        __device__ __forceinline__ float& at(int i, int j) { return x[i][j]; }
        __device__ __forceinline__ float at(int i, int j) const { return x[i][j]; }
        __device__ __forceinline__ void clear() {
#pragma unroll
            for (int i = 0; i < R; i++)
#pragma unroll
                for (int j = 0; j < COLS; j++) x[i][j] = 0;
        }
    };
    using Scores = Values<C>;
    template <int COLS> using Sums = Values<COLS / 16>;

    __device__ __forceinline__ static int across() { return int(threadIdx.x) & 15; }
    __device__ __forceinline__ static int warp_row() { return int(threadIdx.x) / 32 * WARP_ROWS; }
    __device__ __forceinline__ static int part() { return 0; }
    __device__ __forceinline__ static int row(int i) { return int(threadIdx.x) / 16 * 4 + i; }
    __device__ __forceinline__ static constexpr int apart(int j) { return 16 * j; }
    __device__ __forceinline__ static int column(int j) { return across() + apart(j); }
    template <int COLS> __device__ __forceinline__ static int sum_column(int j) {
        return j / 4 * 64 + 4 * across() + j % 4;
    }

    __device__ __forceinline__ static float dot(float4 a, float4 b, float s) {
        return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, s))));
    }
    template <int RA, int RB, int K>
    __device__ __forceinline__ static void scores(Scores& s, Shared<RA, K> a, Shared<RB, K> b, int) {
        s.clear();
#pragma unroll 4
        for (int k = 0; k < K; k += 4) {
            float4 bk[C];
#pragma unroll
            for (int j = 0; j < C; j++) bk[j] = b.get(column(j), k);
#pragma unroll
            for (int i = 0; i < R; i++) {
                float4 ak = a.get(row(i), k);
#pragma unroll
                for (int j = 0; j < C; j++) s.at(i, j) = dot(ak, bk[j], s.at(i, j));
            }
        }
    }
    template <int COLS, int RB, int CB> __device__ __forceinline__ static void
    accumulate(Sums<COLS>& o, const Scores& p, Shared<RB, CB> b, int, int column0, float* scratch) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < C; j++) scratch[row(i) * LDP + column(j)] = p.at(i, j);
        __syncwarp();
#pragma unroll 2
        for (int k = 0; k < N; k += 4) {
            float4 pk[R];
#pragma unroll
            for (int i = 0; i < R; i++) pk[i] = *reinterpret_cast<const float4*>(scratch + row(i) * LDP + k);
#pragma unroll
            for (int e = 0; e < 4; e++)
#pragma unroll
                for (int c = 0; c < COLS / 64; c++) {
                    float4 v = b.get(k + e, column0 + 64 * c + 4 * across());
#pragma unroll
                    for (int i = 0; i < R; i++) {
                        float w = e == 0 ? pk[i].x : e == 1 ? pk[i].y : e == 2 ? pk[i].z : pk[i].w;
                        float* x = &o.x[i][4 * c];
                        x[0] = fmaf(w, v.x, x[0]), x[1] = fmaf(w, v.y, x[1]);
                        x[2] = fmaf(w, v.z, x[2]), x[3] = fmaf(w, v.w, x[3]);
                    }
                }
        }
    }
    template <int COLS> __device__ __forceinline__ static void stage(float* to, const Sums<COLS>& o,
                                                                     const float (&scale)[R], int ld) {
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int c = 0; c < COLS / 64; c++) {
                const float* x = &o.x[i][4 * c];
                *reinterpret_cast<float4*>(to + (row(i) - warp_row()) * ld + 64 * c + 4 * across()) =
                    make_float4(x[0] * scale[i], x[1] * scale[i], x[2] * scale[i], x[3] * scale[i]);
            }
    }
};

} // namespace nvl::flash
