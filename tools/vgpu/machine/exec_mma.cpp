// mma.sync: D (16 x 8) = A (16 x K) B (K x 8) + C, fragments spread over the lanes 4 g + t:
//   A  register j holds E elements of row g + 8 (j & 1), columns 4 E (j / 2) + E t ..
//   B  register j holds E elements of column g, rows 4 E j + E t ..
//   C  registers 0, 1: row g, columns 2t, 2t + 1;  2, 3: row g + 8            PTX ISA, "Matrix fragments"
// Products of the input types are exact in f32, so a fused multiply-add is not needed.
#include <bit>

#include "tools/vgpu/machine/decoder.h"
#include "tools/vgpu/machine/numbers.h"

namespace vgpu {
namespace {

typedef float Column __attribute__((vector_size(64))); // 16 rows

struct Tf32 {
    uint32_t bits;
};
inline float to_float(Tf32 x) { return std::bit_cast<float>(x.bits & ~0x1fffu); }
using vgpu::to_float;

template <class T> constexpr int per_register = 4 / int(sizeof(T));

template <class T> T element(uint32_t word, int k) {
    std::conditional_t<sizeof(T) == 1, uint8_t, std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>> part;
    part = decltype(part)(word >> (8 * int(sizeof(T)) * k));
    return std::bit_cast<T>(part);
}

/// 8 lanes with the same t next to each other: out[t][g] = in[4 g + t].
inline void by_column(const uint32_t* in, uint32_t (*out)[8]) {
    for (int g = 0; g < 8; g++) {
        for (int t = 0; t < 4; t++) out[t][g] = in[4 * g + t];
    }
}

/// The operands as plain arrays: a[k][row], b[k][column].
template <class T, class N, int K>
void unpack(Warp& w, const int32_t* ra, const int32_t* rb, N (*a)[16], N (*b)[8]) {
    constexpr int E = per_register<T>, BLOCKS = K / (4 * E);
    uint32_t words[4][8];
    for (int j = 0; j < 2 * BLOCKS; j++) {
        by_column(w.at<uint32_t>(ra[j]), words);
        for (int t = 0; t < 4; t++) {
            for (int e = 0; e < E; e++) {
                N* row = a[4 * E * (j / 2) + E * t + e] + 8 * (j & 1);
                for (int g = 0; g < 8; g++) {
                    if constexpr (std::is_same_v<N, float>)
                        row[g] = to_float(element<T>(words[t][g], e));
                    else
                        row[g] = element<T>(words[t][g], e);
                }
            }
        }
    }
    for (int j = 0; j < BLOCKS; j++) {
        by_column(w.at<uint32_t>(rb[j]), words);
        for (int t = 0; t < 4; t++) {
            for (int e = 0; e < E; e++) {
                N* row = b[4 * E * j + E * t + e];
                for (int g = 0; g < 8; g++) {
                    if constexpr (std::is_same_v<N, float>)
                        row[g] = to_float(element<T>(words[t][g], e));
                    else
                        row[g] = element<T>(words[t][g], e);
                }
            }
        }
    }
}

/// Sums in double hold products of 16-bit numbers exactly unless their exponents are far apart.
template <int K> void multiply_exact(const float (*a)[16], const float (*b)[8], float (*c)[16], Round round) {
    for (int n = 0; n < 8; n++) {
        for (int r = 0; r < 16; r++) {
            double sum = 0;
            for (int k = 0; k < K; k++) sum += double(a[k][r]) * double(b[k][n]);
            c[n][r] = to_f32(sum_to_odd(sum, c[n][r]), round);
        }
    }
}
template <int K> void multiply(const float (*a)[16], const float (*b)[8], float (*c)[16], Numerics numerics) {
    if (numerics != Numerics::sequential)
        return multiply_exact<K>(a, b, c, numerics == Numerics::exact ? Round::nearest : Round::zero);
    Column sum[8];
    std::memcpy(sum, c, sizeof sum);
    for (int k = 0; k < K; k++) {
        Column column;
        std::memcpy(&column, a[k], sizeof column);
#pragma GCC unroll 8
        for (int n = 0; n < 8; n++) sum[n] += column * b[k][n];
    }
    std::memcpy(c, sum, sizeof sum);
}

/// Extra::registers: D, A, B, C.
template <class T, int K> void mma_f32(Warp& w, const Op& op, uint32_t mask) {
    constexpr int A = K / (4 * per_register<T>)*2, B = A / 2;
    const int32_t* r = op.extra->registers.data();
    const int32_t *rd = r, *ra = r + 4, *rb = ra + A, *rc = rb + B;
    alignas(64) float a[K][16], b[K][8], c[8][16];
    unpack<T, float, K>(w, ra, rb, a, b);
    for (int j = 0; j < 4; j++) {
        const float* f = w.at<float>(rc[j]);
        for (int i = 0; i < 32; i++) c[2 * (i % 4) + (j & 1)][i / 4 + 8 * (j / 2)] = f[i];
    }
    multiply<K>(a, b, c, w.block->launch->numerics);
    for (int j = 0; j < 4; j++) {
        float v[32];
        for (int i = 0; i < 32; i++) v[i] = c[2 * (i % 4) + (j & 1)][i / 4 + 8 * (j / 2)];
        blend(w.at<float>(rd[j]), v, mask);
    }
}

/// C and D in f16, two registers each.
template <int K> void mma_f16(Warp& w, const Op& op, uint32_t mask) {
    constexpr int A = K / 8 * 2, B = A / 2;
    const int32_t* r = op.extra->registers.data();
    const int32_t *rd = r, *ra = r + 2, *rb = ra + A, *rc = rb + B;
    alignas(64) float a[K][16], b[K][8], c[8][16];
    unpack<Half, float, K>(w, ra, rb, a, b);
    for (int j = 0; j < 2; j++) {
        const Two<Half>* h = w.at<Two<Half>>(rc[j]);
        for (int i = 0; i < 32; i++) {
            c[2 * (i % 4)][i / 4 + 8 * j] = to_float(h[i].low);
            c[2 * (i % 4) + 1][i / 4 + 8 * j] = to_float(h[i].high);
        }
    }
    multiply<K>(a, b, c, w.block->launch->numerics);
    for (int j = 0; j < 2; j++) {
        Two<Half> v[32];
        for (int i = 0; i < 32; i++)
            v[i] = {to_half(c[2 * (i % 4)][i / 4 + 8 * j]), to_half(c[2 * (i % 4) + 1][i / 4 + 8 * j])};
        blend(w.at<Two<Half>>(rd[j]), v, mask);
    }
}

/// Bytes, i32 sums; flags 1: saturate.
template <class TA, class TB, int K> void mma_i8(Warp& w, const Op& op, uint32_t mask) {
    constexpr int A = K / 16 * 2, B = A / 2;
    const int32_t* r = op.extra->registers.data();
    const int32_t *rd = r, *ra = r + 4, *rb = ra + A, *rc = rb + B;
    int32_t a[K][16], b[K][8], ignored_a[K][16], ignored_b[K][8];
    unpack<TA, int32_t, K>(w, ra, rb, a, ignored_b);
    unpack<TB, int32_t, K>(w, ra, rb, ignored_a, b);
    for (int j = 0; j < 4; j++) {
        int32_t v[32];
        const int32_t* c = w.at<int32_t>(rc[j]);
        for (int i = 0; i < 32; i++) {
            int row = i / 4 + 8 * (j / 2), column = 2 * (i % 4) + (j & 1);
            int64_t sum = c[i];
            for (int k = 0; k < K; k++) sum += a[k][row] * b[k][column];
            if (op.flags) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
            v[i] = int32_t(sum);
        }
        blend(w.at<int32_t>(rd[j]), v, mask);
    }
}

struct Shape {
    std::string_view name; // shape.d.a.b.c
    Exec exec;
    uint32_t d, a, b, c; // registers
};
constexpr Shape SHAPES[] = {
    {"m16n8k16.f32.bf16.bf16.f32", mma_f32<Bf16, 16>, 4, 4, 2, 4},
    {"m16n8k8.f32.bf16.bf16.f32", mma_f32<Bf16, 8>, 4, 2, 1, 4},
    {"m16n8k16.f32.f16.f16.f32", mma_f32<Half, 16>, 4, 4, 2, 4},
    {"m16n8k8.f32.f16.f16.f32", mma_f32<Half, 8>, 4, 2, 1, 4},
    {"m16n8k16.f16.f16.f16.f16", mma_f16<16>, 2, 4, 2, 2},
    {"m16n8k8.f16.f16.f16.f16", mma_f16<8>, 2, 2, 1, 2},
    {"m16n8k8.f32.tf32.tf32.f32", mma_f32<Tf32, 8>, 4, 4, 2, 4},
    {"m16n8k4.f32.tf32.tf32.f32", mma_f32<Tf32, 4>, 4, 2, 1, 4},
    {"m16n8k32.s32.s8.s8.s32", mma_i8<int8_t, int8_t, 32>, 4, 4, 2, 4},
    {"m16n8k32.s32.u8.s8.s32", mma_i8<uint8_t, int8_t, 32>, 4, 4, 2, 4},
    {"m16n8k32.s32.s8.u8.s32", mma_i8<int8_t, uint8_t, 32>, 4, 4, 2, 4},
    {"m16n8k32.s32.u8.u8.s32", mma_i8<uint8_t, uint8_t, 32>, 4, 4, 2, 4},
    {"m16n8k16.s32.s8.s8.s32", mma_i8<int8_t, int8_t, 16>, 4, 2, 1, 4},
    {"m16n8k16.s32.u8.u8.s32", mma_i8<uint8_t, uint8_t, 16>, 4, 2, 1, 4},
};

void decode_mma(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("sync") || !m.take("aligned") || !m.take("row") || !m.take("col"))
        d.fail("only .sync.aligned .row.col is known");
    bool saturate = m.take("satfinite");
    std::string name(m.first());
    for (int k = 0; k < 4; k++) name += "." + std::string(m.first());
    const Shape* shape = nullptr;
    for (const Shape& s : SHAPES) {
        if (s.name == name) shape = &s;
    }
    if (!shape) d.fail("unknown shape or types " + name);
    d.want_operands(i, 4, 4);
    uint32_t counts[4] = {shape->d, shape->a, shape->b, shape->c};
    std::vector<int32_t> registers;
    for (size_t k = 0; k < 4; k++) {
        const ptx::Operand& o = i.operands[k];
        const auto* list = o.kind == ptx::Operand::vector ? &o.list : nullptr;
        if ((list ? list->size() : 1) != counts[k])
            d.fail("operand " + std::to_string(k) + " has another length than the shape needs");
        for (size_t j = 0; j < counts[k]; j++) {
            const ptx::Operand& one = list ? (*list)[j] : o;
            registers.push_back(k ? d.source(one, 'w') : d.destination(one, 'w'));
        }
    }
    Op& op = d.emit(shape->exec, i, Flow::collective);
    d.extra(op).registers = std::move(registers);
    op.flags = saturate;
}

} // namespace

void add_mma(Table& t) { t.decode("mma", decode_mma); }

} // namespace vgpu
