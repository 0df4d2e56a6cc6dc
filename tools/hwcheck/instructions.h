// Where the PTX ISA ("Warp-level matrix instructions") puts the elements of fragments, and kernels of a few
// instructions. Written from its text, not from the interpreter; tests/vgpu/cute.cpp compares the same
// formulas with CuTe's layouts.
#pragma once
#include <cstdint>

namespace isa {

struct At {
    int row, column;
    bool operator==(const At&) const = default;
};

// mma.m16n8k16, 16-bit operands: element i of lane's a0..a7 (two a register), b0..b3, c0..c3.
inline At a_16816(int lane, int i) {
    int group = lane >> 2, thread = lane % 4;
    bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
    return {upper ? group : group + 8, i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8};
}
inline At b_16816(int lane, int i) { // row: k, column: n
    int group = lane >> 2, thread = lane % 4;
    return {i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8, group};
}
inline At c_16816(int lane, int i) {
    int group = lane >> 2, thread = lane % 4;
    return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
}

// ldmatrix.m8n8.b16: half h (0, 1) of the register that a lane gets of one matrix.
inline At ldmatrix(int lane, int h) { return {lane / 4, lane % 4 * 2 + h}; }
inline At ldmatrix_trans(int lane, int h) { return {lane % 4 * 2 + h, lane / 4}; }

} // namespace isa

// One warp for each case. a: 4 registers of each lane, b: 2, d: 4.
void launch_mma_cases(int cases, const uint32_t* a, const uint32_t* b, float* d);
/// `tile`: 4 matrices of 8 rows of 8 values. Row i of them is at row order[i] of shared memory. out: for .x1,
/// .x2, .x4 and then the same with .trans: 4 registers of each lane.
void launch_ldmatrix(const uint16_t* tile, const int* order, uint32_t* out);
/// 8 variants, in this order: idx (7 lane + 3) in 32 and in 8 lanes, up 3 in 32, up 1 in 16, down 5 in 32,
/// down 2 in 8, xor 9 in 32, xor 9 in 8. Lanes give 100 + lane. out: 32 of each.
void launch_shuffles(int* out);
/// Lane i copies min(i, 16) of 16 bytes and, behind those of all lanes, 4 bytes if i is odd; the rest is
/// zeros. from: 32 x 16 bytes; out: 32 x 16 and 32 x 4 bytes, which were 0xaa before.
void launch_copies(const uint8_t* from, uint8_t* out);

enum class Approximation { ex2, lg2, rcp, rsqrt, tanh };
void launch_approximation(Approximation f, const float* x, float* y, int n);

/// Over n times 16 bytes. read: each of `blocks` blocks gives the sum of its words.
void launch_read(const uint32_t* from, int64_t n, int blocks, uint32_t* sums, void* stream);
void launch_write(uint32_t* to, int64_t n, uint32_t value, int blocks, void* stream);
void launch_copy(uint32_t* to, const uint32_t* from, int64_t n, int blocks, void* stream);
