// Products of bf16 tiles on tensor cores with f32 sums (mma.sync m16n8k16), and the shared-memory tiles that
// feed them.  sm_80 and newer.                                      PTX ISA, "Matrix fragments for
// mma.m16n8k16"
//
//   lane = 4 g + t       A (16 x 16)  r[0] rows g, r[1] rows g + 8: columns 2t, 2t + 1;  r[2], r[3]: columns
//   + 8
//                        B (16 x 8)   r[0] rows 2t, 2t + 1, r[1] rows + 8;  column g
//                        C (16 x 8)   r[0], r[1] row g, columns 2t, 2t + 1;  r[2], r[3] row g + 8
//
// The sum of an element: c = mma(a_k..a_k+15, b_k..b_k+15, c), a function of the 16 pairs and c alone, not of
// its place in a tile. So any two kernels that walk k upwards by 16 from c = 0 give the same bits.
#pragma once
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/tile/pipeline.cuh"

namespace nvl {

struct FragA {
    uint32_t r[4];
};
struct FragB {
    uint32_t r[2];
};
struct FragC {
    float r[4];
};

/// c += a b
__device__ __forceinline__ void mma(FragC& c, const FragA& a, const FragB& b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
}

/// Two f32 as a register of two bf16, the first in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
}
/// Two neighbouring C tiles (columns n..n+7 and n+8..n+15), rounded, as the A of the next product (columns =
/// k).
__device__ __forceinline__ FragA as_a(const FragC& left, const FragC& right) {
    return {{pack_bf16(left.r[0], left.r[1]), pack_bf16(left.r[2], left.r[3]),
             pack_bf16(right.r[0], right.r[1]), pack_bf16(right.r[2], right.r[3])}};
}

/// Two neighbouring sums to shared memory (8-byte aligned) in one instruction: plain C++ leaves it to the
/// compiler.
__device__ __forceinline__ void store_pair(float* to, float first, float second) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address(to)), "f"(first), "f"(second)
                 : "memory");
}

/// Four 8 x 8 matrices of 16-bit elements; lane 8 j + i gives the address of row i of matrix j, and gets from
/// matrix j the elements (g, 2t) and (g, 2t + 1): of its transpose in the second form.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/// ROWS x COLS bf16 in shared memory (128-byte aligned), rows of 16-byte chunks. A chunk's place in its row
/// depends on the row, so that 8 rows of one column of chunks lie in all 32 banks: ldmatrix, and copies along
/// rows, have no bank conflicts, without padding.
template <int ROWS, int COLS> struct SharedTile {
    static constexpr int CHUNKS = COLS / 8, BYTES = ROWS * COLS * 2;
    static_assert(COLS % 8 == 0 && ((CHUNKS & (CHUNKS - 1)) == 0 || CHUNKS % 8 == 0),
                  "rows are a power of two, or a multiple of 8, of 16-byte chunks");
    uint32_t base; // shared_address of the first byte

    __device__ __forceinline__ static int place(int row, int chunk) { // in chunks from the base
        int turn = CHUNKS >= 8 ? row : CHUNKS == 4 ? row >> 1 : CHUNKS == 2 ? row >> 2 : 0;
        return row * CHUNKS + (chunk ^ (turn & (CHUNKS >= 8 ? 7 : CHUNKS - 1)));
    }
    __device__ __forceinline__ uint32_t at(int row, int chunk) const {
        return base + uint32_t(place(row, chunk)) * 16;
    }
};

/// The 16 x 16 part at (row, k) of a tile stored [row][k].
template <int R, int C> __device__ __forceinline__ FragA load_a(SharedTile<R, C> s, int row, int k) {
    FragA a;
    int lane = int(threadIdx.x) & 31;
    load_matrices(a.r, s.at(row + (lane & 15), k / 8 + (lane >> 4)));
    return a;
}
/// The same of a tile stored [k][row].
template <int R, int C>
__device__ __forceinline__ FragA load_a_transposed(SharedTile<R, C> s, int row, int k) {
    FragA a;
    int lane = int(threadIdx.x) & 31;
    load_matrices_transposed(a.r, s.at(k + (lane >> 4) * 8 + (lane & 7), row / 8 + (lane >> 3 & 1)));
    return a;
}
/// Two neighbours, columns col.. and col + 8.., of a tile stored [col][k].
template <int R, int C>
__device__ __forceinline__ void load_b(FragB& left, FragB& right, SharedTile<R, C> s, int col, int k) {
    uint32_t r[4];
    int lane = int(threadIdx.x) & 31;
    load_matrices(r, s.at(col + (lane >> 4) * 8 + (lane & 7), k / 8 + (lane >> 3 & 1)));
    left = {{r[0], r[1]}}, right = {{r[2], r[3]}};
}
/// The same of a tile stored [k][col].
template <int R, int C> __device__ __forceinline__ void
load_b_transposed(FragB& left, FragB& right, SharedTile<R, C> s, int col, int k) {
    uint32_t r[4];
    int lane = int(threadIdx.x) & 31;
    load_matrices_transposed(r, s.at(k + (lane & 15), col / 8 + (lane >> 4)));
    left = {{r[0], r[1]}}, right = {{r[2], r[3]}};
}

} // namespace nvl
