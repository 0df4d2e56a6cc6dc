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

// Lanes 4 g + t to t-major order and back, 16 words at a time: index 8 t + g.
typedef uint32_t Words __attribute__((vector_size(64)));
struct Turned {
    Words early, late; // t = 0, 1 and t = 2, 3
};
inline Turned turned(const uint32_t* in) {
    Words low, high;
    std::memcpy(&low, in, sizeof low), std::memcpy(&high, in + 16, sizeof high);
    return {__builtin_shuffle(low, high, Words{0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29}),
            __builtin_shuffle(low, high, Words{2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31})};
}
inline void turn_back(const Turned& x, uint32_t* out) {
    Words low =
        __builtin_shuffle(x.early, x.late, Words{0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27});
    Words high =
        __builtin_shuffle(x.early, x.late, Words{4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31});
    std::memcpy(out, &low, sizeof low), std::memcpy(out + 16, &high, sizeof high);
}
inline Words low_halves(Words x, Words y) {
    return __builtin_shuffle(x, y, Words{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23});
}
inline Words high_halves(Words x, Words y) {
    return __builtin_shuffle(x, y, Words{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
}
/// Columns 0 to 3 (one for each t) of 16 rows, from the registers of the upper and the lower 8 rows.
inline void columns_of(const uint32_t* upper, const uint32_t* lower, Words (&column)[4]) {
    Turned x = turned(upper), y = turned(lower);
    column[0] = low_halves(x.early, y.early), column[1] = high_halves(x.early, y.early);
    column[2] = low_halves(x.late, y.late), column[3] = high_halves(x.late, y.late);
}
inline void from_columns(const Words (&column)[4], uint32_t* upper, uint32_t* lower) {
    turn_back({low_halves(column[0], column[1]), low_halves(column[2], column[3])}, upper);
    turn_back({high_halves(column[0], column[1]), high_halves(column[2], column[3])}, lower);
}

/// Element e of each word as a number.
template <class T, class N> void numbers_of(const uint32_t* words, int e, N* out, int count) {
    for (int i = 0; i < count; i++) {
        if constexpr (std::is_same_v<N, float>)
            out[i] = to_float(element<T>(words[i], e));
        else
            out[i] = element<T>(words[i], e);
    }
}

/// The operands as plain arrays: a[k][row], b[k][column].
template <class T, class N, int K>
void unpack(Warp& w, const int32_t* ra, const int32_t* rb, N (*a)[16], N (*b)[8]) {
    constexpr int E = per_register<T>, BLOCKS = K / (4 * E);
    for (int j = 0; j < BLOCKS; j++) {
        Words column[4];
        columns_of(w.at<uint32_t>(ra[2 * j]), w.at<uint32_t>(ra[2 * j + 1]), column);
        Turned row = turned(w.at<uint32_t>(rb[j]));
        uint32_t words[4][16], rows[4][8];
        std::memcpy(words, column, sizeof words), std::memcpy(rows, &row, sizeof rows);
        for (int t = 0; t < 4; t++) {
            for (int e = 0; e < E; e++) {
                numbers_of<T>(words[t], e, a[4 * E * j + E * t + e], 16);
                numbers_of<T>(rows[t], e, b[4 * E * j + E * t + e], 8);
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
    Words even[4], odd[4]; // columns 2 t and 2 t + 1
    columns_of(w.at<uint32_t>(rc[0]), w.at<uint32_t>(rc[2]), even);
    columns_of(w.at<uint32_t>(rc[1]), w.at<uint32_t>(rc[3]), odd);
    for (int t = 0; t < 4; t++)
        std::memcpy(c[2 * t], &even[t], sizeof even[t]), std::memcpy(c[2 * t + 1], &odd[t], sizeof odd[t]);
    multiply<K>(a, b, c, w.block->launch->numerics);
    for (int t = 0; t < 4; t++)
        std::memcpy(&even[t], c[2 * t], sizeof even[t]), std::memcpy(&odd[t], c[2 * t + 1], sizeof odd[t]);
    uint32_t d[4][32];
    from_columns(even, d[0], d[2]);
    from_columns(odd, d[1], d[3]);
    for (int j = 0; j < 4; j++) blend(w.at<uint32_t>(rd[j]), d[j], mask);
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
