// Products of a warpgroup (128 threads) with both operands in shared memory (wgmma), f32 sums.  sm_90a.
//                                                              PTX ISA, "Asynchronous warpgroup level matrix"
// Operands lie in 128-byte rows, 8 rows to a pattern of 1024 bytes whose 16-byte chunks are XORed with the
// row, as TMA writes them with CU_TENSOR_MAP_SWIZZLE_128B:
//   dense k     [row][64 k]: 64 elements of k in a row; the next 8 rows are 1024 bytes on
//   dense rows  [k][64 rows]: 64 rows of the operand in a row of memory; the next 8 k are 1024 bytes on, the
//   next
//               64 rows of the operand a panel of its own
//
// c[4 j + i] of lane 4 g + t in warp w: row 16 w + g (+ 8 for i >= 2), column 8 j + 2 t + i % 2.
// An element's sum is one chain over steps of 16 k, like mma.sync's; that the bits agree is not promised.
#pragma once
#include <cstdint>

namespace nvl {

/// Where an operand starts and how it lies. `panel`: bytes from 64 rows of the operand to the next (dense
/// rows).
__device__ __forceinline__ uint64_t wgmma_operand(uint32_t address, uint32_t panel = 0) {
    return uint64_t((address & 0x3ffff) >> 4) | uint64_t(panel >> 4) << 16 | uint64_t(1024 >> 4) << 32 |
           uint64_t(1) << 62;
}

/// The registers of c are settled: before the first product that touches them.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until at most PENDING committed groups are unfinished.
template <int PENDING> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
/// After the last wait: no use of c moves above this point.
template <int N> __device__ __forceinline__ void wgmma_settled(float (&c)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(c[i])::"memory");
}

/// c (64 x 128) += a (64 x 16) b (16 x 128).
template <bool A_DENSE_K, bool B_DENSE_K>
__device__ __forceinline__ void wgmma_64x128x16(float (&c)[64], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
                 "}, %64, %65, 1, 1, 1, %66, %67;"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
                   "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
                   "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]),
                   "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
                   "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]),
                   "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]),
                   "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]),
                   "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
                   "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]),
                   "+f"(c[63])
                 : "l"(a), "l"(b), "n"(A_DENSE_K ? 0 : 1), "n"(B_DENSE_K ? 0 : 1));
}

} // namespace nvl
