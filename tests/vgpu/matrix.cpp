// Tensor core fragments: the layouts of the PTX manual, written out once more, element by element.
#include <bit>
#include <cmath>
#include <functional>
#include <random>

#include "tests/vgpu/ptx_kernel.h"

namespace vgpu {
namespace {

float bf16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }
uint16_t as_bf16(float x) { return uint16_t(std::bit_cast<uint32_t>(x) >> 16); }
float f16(uint32_t bits) { return float(std::bit_cast<_Float16>(uint16_t(bits))); }
uint16_t as_f16(float x) { return std::bit_cast<uint16_t>(_Float16(x)); }

/// One warp: every register operand of the instruction is a word per lane, given and returned.
std::vector<uint32_t> run_mma(const std::string& opcode, int d, int a, int b, int c,
                              const std::vector<uint32_t>& in, Numerics numerics = Numerics::sequential) {
    auto list = [](const char* name, int n) {
        std::string s = "{";
        for (int k = 0; k < n; k++) s += std::string(k ? ", " : "") + name + std::to_string(k);
        return s + "}";
    };
    std::string text =
        ".visible .entry k(.param .u64 in, .param .u64 out) {.reg .b32 %t, %d<8>, %a<8>, %b<8>, %c<8>; .reg "
        ".b64 %i, %o, %w;\n"
        "mov.u32 %t, %tid.x; mul.wide.u32 %w, %t, 4; ld.param.u64 %i, [in]; add.s64 %i, %i, %w; "
        "ld.param.u64 %o, [out]; add.s64 %o, %o, %w;\n";
    int at = 0;
    auto load = [&](const char* name, int n) {
        for (int k = 0; k < n; k++, at++)
            text += "ld.global.u32 " + std::string(name) + std::to_string(k) + ", [%i+" +
                    std::to_string(at * 128) + "];\n";
    };
    load("%a", a), load("%b", b), load("%c", c);
    text += opcode + " " + list("%d", d) + ", " + list("%a", a) + ", " + list("%b", b) + ", " +
            list("%c", c) + ";\n";
    for (int k = 0; k < d; k++)
        text += "st.global.u32 [%o+" + std::to_string(k * 128) + "], %d" + std::to_string(k) + ";\n";
    std::vector<uint32_t> out(size_t(d) * 32);
    Kernel{.block = {32}, .numerics = numerics}(module_text(text + "ret; }"),
                                                Arguments().add(in.data()).add(out.data()));
    return out;
}

struct Place {
    int row, column;
};
// "Matrix fragments for mma.m16n8k16 with floating point type", element i of a thread's a, b, c
Place a16(int lane, int i) {
    return {(lane >> 2) + (i % 4 < 2 ? 0 : 8), (lane % 4) * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Place b16(int lane, int i) { return {(lane % 4) * 2 + (i & 1) + (i < 2 ? 0 : 8), lane >> 2}; }
Place c_of(int lane, int i) { return {(lane >> 2) + (i < 2 ? 0 : 8), (lane % 4) * 2 + (i & 1)}; }
// "mma.m16n8k8" with .tf32
Place a_tf32(int lane, int i) { return {(lane >> 2) + (i & 1 ? 8 : 0), lane % 4 + (i < 2 ? 0 : 4)}; }
Place b_tf32(int lane, int i) { return {lane % 4 + (i == 0 ? 0 : 4), lane >> 2}; }
// "mma.m16n8k32" with integers
Place a_i8(int lane, int i) {
    return {(lane >> 2) + (i % 8 < 4 ? 0 : 8), (lane % 4) * 4 + (i & 3) + (i < 8 ? 0 : 16)};
}
Place b_i8(int lane, int i) { return {(lane % 4) * 4 + (i & 3) + (i < 4 ? 0 : 16), lane >> 2}; }

/// Random small integers, so that every sum is exact whatever the numerics.
void test_floats(const char* opcode, int K, int a_regs, int b_regs, Place (*pa)(int, int),
                 Place (*pb)(int, int), uint32_t (*pack)(float), int per_register) {
    std::mt19937 random(7);
    std::vector<std::vector<float>> A(16, std::vector<float>(size_t(K))), B(size_t(K), std::vector<float>(8)),
        C(16, std::vector<float>(8));
    for (auto* m : {&A, &B, &C}) {
        for (auto& row : *m) {
            for (float& x : row) x = float(int(random() % 17) - 8);
        }
    }
    std::vector<uint32_t> in;
    auto push = [&](int regs, int each, const std::function<uint32_t(int, int)>& element) {
        for (int r = 0; r < regs; r++) {
            for (int lane = 0; lane < 32; lane++) {
                uint32_t word = 0;
                for (int e = 0; e < each; e++) word |= element(lane, r * each + e) << (32 / each * e) % 32;
                in.push_back(word);
            }
        }
    };
    push(a_regs, per_register, [&](int l, int i) {
        Place p = pa(l, i);
        return pack(A[size_t(p.row)][size_t(p.column)]);
    });
    push(b_regs, per_register, [&](int l, int i) {
        Place p = pb(l, i);
        return pack(B[size_t(p.row)][size_t(p.column)]);
    });
    push(4, 1, [&](int l, int i) {
        Place p = c_of(l, i);
        return std::bit_cast<uint32_t>(C[size_t(p.row)][size_t(p.column)]);
    });
    for (Numerics n : {Numerics::sequential, Numerics::exact, Numerics::truncate}) {
        auto out = run_mma(opcode, 4, a_regs, b_regs, 4, in, n);
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 4; i++) {
                Place p = c_of(lane, i);
                float sum = C[size_t(p.row)][size_t(p.column)];
                for (int k = 0; k < K; k++)
                    sum += A[size_t(p.row)][size_t(k)] * B[size_t(k)][size_t(p.column)];
                ASSERT_EQ(std::bit_cast<float>(out[size_t(i * 32 + lane)]), sum)
                    << opcode << " lane " << lane << " element " << i;
            }
        }
    }
}

TEST(Matrix, products_of_floats) {
    auto bf = +[](float x) { return uint32_t(as_bf16(x)); };
    auto h = +[](float x) { return uint32_t(as_f16(x)); };
    auto t = +[](float x) { return std::bit_cast<uint32_t>(x); };
    test_floats("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, 4, 2, a16, b16, bf, 2);
    test_floats("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 16, 4, 2, a16, b16, h, 2);
    test_floats("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", 8, 2, 1, a16, b16, bf, 2);
    test_floats("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 8, 4, 2, a_tf32, b_tf32, t, 1);
    EXPECT_EQ(bf16(as_bf16(3)), f16(as_f16(3)));
}

TEST(Matrix, products_of_bytes) {
    std::mt19937 random(3);
    std::vector<uint32_t> in(10 * 32);
    for (uint32_t& x : in) x = uint32_t(random());
    auto out = run_mma("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", 4, 4, 2, 4, in);
    int A[16][32], B[32][8];
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 16; i++)
            A[a_i8(lane, i).row][a_i8(lane, i).column] =
                int8_t(in[size_t(i / 4 * 32 + lane)] >> (8 * (i & 3)));
        for (int i = 0; i < 8; i++)
            B[b_i8(lane, i).row][b_i8(lane, i).column] =
                int8_t(in[size_t((4 + i / 4) * 32 + lane)] >> (8 * (i & 3)));
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            Place p = c_of(lane, i);
            uint32_t sum = in[size_t((6 + i) * 32 + lane)];
            for (int k = 0; k < 32; k++) sum += uint32_t(A[p.row][k] * B[k][p.column]);
            ASSERT_EQ(out[size_t(i * 32 + lane)], sum);
        }
    }
}

/// Tiles go from shared memory to fragments and back.
TEST(Matrix, tiles_of_shared_memory) {
    std::string head =
        R"({.shared .align 16 .b8 s[1024]; .reg .b32 %x, %y, %z, %r<4>; mov.u32 %y, s; shl.b32 %x, %t, 2; and.b32 %x, %x, 127;
        add.u32 %x, %x, %y; st.shared.u32 [%x], %a; add.u32 %z, %a, 1000; st.shared.u32 [%x+128], %z; bar.sync 0;
        and.b32 %z, %t, 15; shl.b32 %z, %z, 4; add.u32 %z, %z, %y; )";
    std::vector<uint32_t> a(THREADS);
    auto element = [](uint32_t i) { return uint16_t(i * 5 + 1); }; // of tile 0, in memory order
    for (uint32_t t = 0; t < THREADS; t++)
        a[t] = element(2 * (t % 32)) | uint32_t(element(2 * (t % 32) + 1)) << 16;
    auto plain =
        results<uint32_t, uint32_t>(head + "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%d}, [%z];}", a);
    auto turned = results<uint32_t, uint32_t>(
        head + "ldmatrix.sync.aligned.m8n8.x1.trans.shared::cta.b16 {%d}, [%z];}", a);
    auto second =
        results<uint32_t, uint32_t>(head + "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r0, %d}, [%z];}", a);
    auto moved = results<uint32_t, uint32_t>(head + "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%z]; "
                                                    "movmatrix.sync.aligned.m8n8.trans.b16 %d, %r0;}",
                                             a);
    auto stored =
        results<uint32_t, uint32_t>(head + "bar.sync 0; stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%z], "
                                           "{%a}; bar.sync 0; ld.shared.u32 %d, [%x];}",
                                    a);
    for (uint32_t t = 0; t < 32; t++) {
        uint32_t g = t / 4, c = t % 4;
        EXPECT_EQ(plain[t], a[t]);
        EXPECT_EQ(second[t], a[t] + 1000);
        uint32_t transposed = element(2 * c * 8 + g) | uint32_t(element((2 * c + 1) * 8 + g)) << 16;
        EXPECT_EQ(turned[t], transposed);
        EXPECT_EQ(moved[t], transposed);
        EXPECT_EQ(stored[t], transposed);
    }
}

} // namespace
} // namespace vgpu
