// Inner loops of the GEMM: micro-kernel, packing, epilogue. Included once by each gemm_<variant>.cpp, which
// sets GEMM_VARIANT, GEMM_LANES, GEMM_ROWS and GEMM_NATIVE_BF16. Everything is in an unnamed namespace and
// calls no inline function of a shared header: the linker must never pick an AVX-512 copy of one for an older
// CPU.
#pragma once
#include <cstring>

#include "kernels/linear/gemm_variant.h"
#if GEMM_LANES > 4
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))

namespace nvl {
namespace {

// Words of the instruction set
// ------------------------------------------------------------------------------------
constexpr int W = GEMM_LANES, MR = GEMM_ROWS, NV = 2, NR = NV * W;
typedef float V __attribute__((vector_size(4 * W)));
typedef uint32_t U __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef uint16_t H __attribute__((vector_size(2 * W)));
typedef V VMem __attribute__((aligned(2), may_alias)); // rows of bf16 begin anywhere
typedef H HMem __attribute__((aligned(2), may_alias));

INLINE V load(const void* p) { return *static_cast<const VMem*>(p); }
INLINE void store(void* p, V x) { *static_cast<VMem*>(p) = x; }
INLINE V all(float x) { return x - V{}; }
INLINE V bits(U x) { return (V)x; }
INLINE V pick(I mask, V yes, V no) { return mask ? yes : no; }

INLINE V fma(V a, V b, V c) {
#if GEMM_LANES == 16
    return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif GEMM_LANES == 8
    return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < W; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}
// 16 bits to 32 and back. GCC 12 takes the vectors apart where the instruction set has it in one.
INLINE U widen(const void* p) {
#if GEMM_LANES == 16
    return (U)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(p)));
#else
    return __builtin_convertvector(*static_cast<const HMem*>(p), U);
#endif
}
INLINE void narrow(void* p, U x) {
#if GEMM_LANES == 16
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)x));
#else
    *static_cast<HMem*>(p) = __builtin_convertvector(x, H);
#endif
}
INLINE V broadcast(const uint32_t* p) { return bits(U{} + *p); } // as integers: two bf16 may look like a NaN

struct F32 {
    using E = uint32_t;
    static constexpr int PER_WORD = 1;
    INLINE V dot(V c, V a, V b) { return fma(a, b, c); }
};
struct Bf16 {
    using E = uint16_t;
    static constexpr int PER_WORD = 2;
    INLINE V low(V x) { return bits((U)x << 16); }
    INLINE V high(V x) { return bits((U)x & 0xffff0000u); }
    INLINE V dot(V c, V a, V b) {
#if GEMM_NATIVE_BF16
        return (V)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
        return fma(low(a), low(b), fma(high(a), high(b), c)); // vdpbf16ps, bit for bit: the odd element first
#endif
    }
};

struct OutF32 {
    using E = float;
    INLINE V read(const E* p) { return load(p); }
    INLINE void write(E* p, V x) { store(p, x); }
};
struct OutBf16 {
    using E = uint16_t;
    INLINE V read(const E* p) { return bits(widen(p) << 16); }
    INLINE void write(E* p, V x) { // to nearest, ties to even; NaN to the quiet one
        U u = (U)x, r = (u + 0x7fff + (u >> 16 & 1)) >> 16;
        r = (U)pick(x == x, bits(r), bits(U{} + 0x7fc0));
        narrow(p, r);
    }
};

// Micro-kernel
// ------------------------------------------------------------------------------------------------------
// Most rows for which 4 or 2 panels are computed at a time: one panel has too few chains to hide the latency.
constexpr int ROWS_4 = W == 16 ? 2 : 1, ROWS_2 = W == 16 ? 3 : 2;
constexpr int PREFETCH_A = 24; // steps of K ahead

/// Words from one step of K to the next in a panel of A: a power of two, so that no store of the packing
/// straddles two lines of the cache.
constexpr int width_of(int rows) { return rows > 8 ? 16 : rows > 4 ? 8 : rows > 2 ? 4 : rows; }

template <class T, int ROWS, int COLS>
INLINE void step(const uint32_t* a, const uint32_t* b, const GemmTile& t, V (&c)[ROWS][COLS]) {
    V row[COLS];
    __builtin_prefetch(a + PREFETCH_A * width_of(ROWS), 0, 3);
    UNROLL for (int j = 0; j < COLS; j++) {
        const uint32_t* p = b + (j / NV) * t.b_panel + (j % NV) * W;
        __builtin_prefetch(p + t.prefetch_b, 0, 3);
        if (ROWS > ROWS_4) __builtin_prefetch(p + t.prefetch_far, 0, 2); // else loads are the limit
        row[j] = load(p);
    }
    UNROLL for (int i = 0; i < ROWS; i++) {
        V x = broadcast(a + i);
        UNROLL for (int j = 0; j < COLS; j++) c[i][j] = T::dot(c[i][j], x, row[j]);
    }
}
INLINE const char* next_line(GemmLines& l) {
    const char* at = l.at;
    bool end = --l.line == 0;
    l.at += end ? l.skip : 64, l.line = end ? l.row : l.line, l.left--;
    return at;
}
template <class T, int ROWS, int COLS>
INLINE void chain(const uint32_t* __restrict a, const uint32_t* __restrict b, const GemmTile& t,
                  GemmLines& written, GemmLines& read, V (&c)[ROWS][COLS]) {
    constexpr int STEPS = 4;
    int64_t k = 0;
    for (; k + STEPS <= t.words; k += STEPS) {
        if (written.left > 0) __builtin_prefetch(next_line(written), 1, 3);
        if (read.left > 0) __builtin_prefetch(next_line(read), 0, 2);
        UNROLL for (int s = 0; s < STEPS; s++, a += width_of(ROWS), b += NR) step<T>(a, b, t, c);
    }
    for (; k < t.words; k++, a += width_of(ROWS), b += NR) step<T>(a, b, t, c);
}

template <int ROWS, int COLS> INLINE void add_tile(const float* s, int64_t panel, V (&c)[ROWS][COLS]) {
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < COLS; j++) c[i][j] =
        load(s + i * NR + (j / NV) * panel + (j % NV) * W) + c[i][j];
}
// Bias and rounding in registers: by way of a tile in memory they cost 3 % of a product with K = 768.
template <int ROWS, int COLS> INLINE void store_out(const GemmTile& t, V (&c)[ROWS][COLS]) {
    if (t.bias) UNROLL for (int j = 0; j < COLS; j++) {
            V bias = load(t.bias + j * W);
            UNROLL for (int i = 0; i < ROWS; i++) c[i][j] = c[i][j] + bias;
        }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < COLS; j++) {
        int64_t at = i * t.out_row + (j / NV) * t.out_panel + (j % NV) * W;
        if (t.out_bf16)
            OutBf16::write(reinterpret_cast<uint16_t*>(t.out) + at, c[i][j]);
        else
            OutF32::write(t.out + at, c[i][j]);
    }
}
template <int ROWS, int COLS>
INLINE void store_tile(float* s, int64_t row, int64_t panel, const V (&c)[ROWS][COLS]) {
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < COLS; j++)
        store(s + i * row + (j / NV) * panel + (j % NV) * W, c[i][j]);
}

template <class T, int ROWS, int PANELS> __attribute__((noinline)) void tile_kernel(const GemmTile& t) {
    constexpr int COLS = PANELS * NV, TILE = MR * NR;
    V c[ROWS][COLS];
    GemmLines written = t.written, read = *t.read;
    int64_t later = read.left > t.reads ? read.left - t.reads : 0;
    read.left -= later;
    for (int leaf = 0;; leaf++) {
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < COLS; j++) c[i][j] = V{};
        if (t.init)
            UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < COLS; j++) c[i][j] =
                load(t.init + i * NR + (j / NV) * t.tile_panel + (j % NV) * W);
        chain<T, ROWS, COLS>(t.a + leaf * t.words * width_of(ROWS), t.b + leaf * t.words * NR, t, written,
                             read, c);
        float* level = t.local; // binary counter: level d holds the sum of 2^d leaves
        for (int d = 0; leaf >> d & 1; d++, level += PANELS * TILE) add_tile(level, TILE, c);
        if (leaf + 1 == t.leaves) break;
        store_tile(level, NR, TILE, c);
    }
    for (int m = 0; m < t.merges; m++) add_tile(t.merge[m], t.tile_panel, c);
    store_out(t, c);
    read.left += later, *t.read = read;
}

template <int... I> struct Rows {};
template <int N, int... I> struct Count : Count<N - 1, N, I...> {};
template <int... I> struct Count<0, I...> { using type = Rows<I...>; };
template <class T, int PANELS, int... I> GemmKernel pick_rows(int rows, Rows<I...>) {
    static constexpr GemmKernel table[] = {tile_kernel<T, I, PANELS>...};
    return table[rows - 1];
}
template <class T> GemmKernel pick_kernel(int rows, int panels) {
    if (panels == 4) return pick_rows<T, 4>(rows, Count<ROWS_4>::type());
    if (panels == 2) return pick_rows<T, 2>(rows, Count<ROWS_2>::type());
    return pick_rows<T, 1>(rows, typename Count<MR>::type());
}
GemmKernel kernel(Dtype in, int rows, int panels) {
    return in == Dtype::bf16 ? pick_kernel<Bf16>(rows, panels) : pick_kernel<F32>(rows, panels);
}

// Packing
// ------------------------------------------------------------------------------------------------------------
/// The lines of a packed panel were last read by the other threads: a store that waits for one to come back
/// holds up all stores behind it (40 ns each), so they are asked for ahead.
INLINE void prefetch_for_store(const uint32_t* p, int64_t words) {
#if defined(__x86_64__)
    for (int64_t i = 0; i < words; i += 16) asm volatile("prefetchw %0" : : "m"(p[i]));
#endif
}

// W x W transpose in log2(W) steps: blocks of S lanes change places between rows i and i + S.
template <int S> INLINE void swap_blocks(V (&r)[W]) {
    I low, high;
    UNROLL for (int l = 0; l < W; l++) low[l] = l & S ? W + l - S : l, high[l] = l & S ? W + l : l + S;
    UNROLL for (int i = 0; i < W; i++) {
        if (i & S) continue;
        V a = r[i], b = r[i + S];
        r[i] = __builtin_shuffle(a, b, low), r[i + S] = __builtin_shuffle(a, b, high);
    }
}
INLINE void transpose(V (&r)[W]) {
    if constexpr (W >= 16) swap_blocks<8>(r);
    if constexpr (W >= 8) swap_blocks<4>(r);
    swap_blocks<2>(r), swap_blocks<1>(r);
}

/// Two rows of 2 W bf16 to 2 W pairs.
INLINE void interleave(V& a, V& b) {
    typedef uint16_t HH __attribute__((vector_size(4 * W)));
    HH low, high;
    for (int i = 0; i < 2 * W; i++) low[i] = uint16_t(i / 2 + i % 2 * 2 * W), high[i] = uint16_t(low[i] + W);
    V first = (V)__builtin_shuffle((HH)a, (HH)b, low);
    b = (V)__builtin_shuffle((HH)a, (HH)b, high), a = first;
}

/// The first `width` lanes, a power of two; all of them if it is larger.
INLINE void store_lanes(uint32_t* out, V x, int64_t width) {
    if (width >= W)
        store(out, x);
    else if (width == 8)
        memcpy(out, &x, 32 < sizeof x ? 32 : sizeof x);
    else if (width == 4)
        memcpy(out, &x, 16);
    else
        memcpy(out, &x, width == 2 ? 8 : 4);
}

/// The word of elements k, k + 1 (bf16) or k (f32); stride is what separates k from k + 1.
template <class T> INLINE uint32_t word(const typename T::E* s, int64_t stride, int64_t k, int64_t K) {
    if constexpr (T::PER_WORD == 1) return s[k * stride];
    return s[k * stride] | (k + 1 < K ? uint32_t(s[(k + 1) * stride]) << 16 : 0);
}

// n rows with K contiguous.
template <class T>
void pack_rows(const typename T::E* s, int64_t ld, int n, int64_t K, uint32_t* out, int64_t width) {
    int64_t k = 0, words = (K + T::PER_WORD - 1) / T::PER_WORD;
    if (n > 2)
        for (; (k + W) * T::PER_WORD <= K; k += W) {
            V r[W];
            if (width <= 16) prefetch_for_store(out + (k + 2 * W) * width, W * width);
            UNROLL for (int i = 0; i < W; i++) r[i] = i < n ? load(s + i * ld + k * T::PER_WORD) : V{};
            transpose(r);
            UNROLL for (int i = 0; i < W; i++) store_lanes(out + (k + i) * width, r[i], width);
        }
    for (; k < words; k++)
        for (int i = 0; i < n; i++) out[k * width + i] = word<T>(s + i * ld, 1, k * T::PER_WORD, K);
}

// n columns, K being the slow index. A load reads W columns whatever n is, while that stays inside the
// matrix.
template <class T>
void pack_columns(const typename T::E* s, int64_t ld, int n, int64_t K, uint32_t* out, int64_t width) {
    int64_t words = (K + T::PER_WORD - 1) / T::PER_WORD, k = 0;
    int64_t whole = n >= W ? K : K - (W - n + ld - 1) / ld;
    for (; (k + 1) * T::PER_WORD <= whole; k++) {
        if (width <= 16) prefetch_for_store(out + (k + 32) * width, 1);
        if constexpr (T::PER_WORD == 1) {
            store_lanes(out + k * width, load(s + k * ld), width);
        } else {
            U low = widen(s + 2 * k * ld), high = widen(s + (2 * k + 1) * ld);
            store_lanes(out + k * width, bits(low | high << 16), width);
        }
    }
    for (; k < words; k++)
        for (int i = 0; i < n; i++) out[k * width + i] = word<T>(s + i, ld, k * T::PER_WORD, K);
}

// A whole panel of B, K being the slow index: both its vectors in one pass over the rows.
template <class T> void pack_panel(const typename T::E* s, int64_t ld, int64_t K, uint32_t* out) {
    int64_t words = K / T::PER_WORD;
    for (int64_t k = 0; k < words; k++, s += T::PER_WORD * ld, out += NR) {
        V first = load(s), second = T::PER_WORD == 1 ? load(s + W) : load(s + ld);
        if constexpr (T::PER_WORD == 2) interleave(first, second);
        store(out, first), store(out + W, second);
    }
    if (words * T::PER_WORD < K)
        for (int i = 0; i < NR; i++) out[i] = s[i];
}

template <class T>
void pack_as(const void* src, int64_t ld, bool k_major, int n, int64_t K, uint32_t* out, int width) {
    auto* s = static_cast<const typename T::E*>(src);
    if (k_major && n == NR && width == NR) return pack_panel<T>(s, ld, K, out);
    for (int i = 0; i < n; i += W) {
        int lanes = n - i < W ? n - i : W;
        if (k_major)
            pack_columns<T>(s + i, ld, lanes, K, out + i, width);
        else
            pack_rows<T>(s + i * ld, ld, lanes, K, out + i, width);
    }
}
void pack(Dtype in, const void* src, int64_t ld, bool k_major, int n, int64_t K, uint32_t* out, int width) {
    in == Dtype::bf16 ? pack_as<Bf16>(src, ld, k_major, n, K, out, width)
                      : pack_as<F32>(src, ld, k_major, n, K, out, width);
}

// Epilogue
// -----------------------------------------------------------------------------------------------------------
/// exp for |x| <= 87: Cody-Waite reduction, degree 6, about 1 ulp; beyond that it stays at exp(+-87).
INLINE V exp(V x) {
    V hi = all(87.f), lo = all(-87.f), magic = all(0x1.8p23f); // adding it rounds to an integer
    x = pick(x > hi, hi, pick(x < lo, lo, x));
    V shifted = fma(x, all(1.44269504088896341f), magic), n = shifted - magic;
    V r = fma(n, all(-0.693145751953125f), x);
    r = fma(n, all(-1.42860682030941723e-6f), r);
    V p = fma(all(1.392618404e-03f), r, all(8.363178931e-03f));
    p = fma(p, r, all(4.166655615e-02f)), p = fma(p, r, all(1.666657627e-01f)), p = fma(p, r, all(0.5f));
    p = fma(r * r, p, r) + all(1.f);
    return bits((U)p + ((U)shifted << 23)); // n into the exponent
}
INLINE V sigmoid(V x) { return all(1.f) / (all(1.f) + exp(-x)); }
/// 0.5 x (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
INLINE V gelu_tanh(V x) {
    V u = x * fma(x * x, all(0.044715f * 1.5957691216f), all(1.5957691216f));
    return x * sigmoid(u);
}

/// W (or fewer) outputs of one row: x is the sum, up the second half of a swiglu.
template <class O> INLINE void finish_vector(V x, V up, const float* bias, const typename O::E* residual,
                                             typename O::E* c, const GemmEpilogue& e) {
    if (e.activation == Epilogue::swiglu) x = x * sigmoid(x) * up;
    if (bias) x = x + load(bias);
    if (e.activation == Epilogue::gelu_tanh) x = gelu_tanh(x);
    if (residual) x = x + O::read(residual);
    if (e.accumulate) x = O::read(c) + x;
    O::write(c, x);
}
template <class O>
void finish_as(const float* tile, int rows, int cols, const GemmEpilogue& e, int64_t row0, int64_t col0) {
    using E = typename O::E;
    for (int i = 0; i < rows; i++) {
        auto* c = static_cast<E*>(e.c) + (row0 + i) * e.ldc + col0;
        auto* residual = e.residual ? static_cast<const E*>(e.residual) + (row0 + i) * e.ldr + col0 : nullptr;
        for (int j = 0; j < cols; j += W) {
            const float* t = tile + i * NR + j;
            const float* bias = e.bias ? e.bias + col0 + j : nullptr;
            V up = e.activation == Epilogue::swiglu ? load(t + NR / 2) : V{};
            if (cols - j >= W) {
                finish_vector<O>(load(t), up, bias, residual ? residual + j : nullptr, c + j, e);
                continue;
            }
            E edge[W] = {}, edge_residual[W] = {};
            size_t n = size_t(cols - j) * sizeof(E);
            if (e.accumulate) memcpy(edge, c + j, n);
            if (residual) memcpy(edge_residual, residual + j, n);
            finish_vector<O>(load(t), up, bias, residual ? edge_residual : nullptr, edge, e);
            memcpy(c + j, edge, n);
        }
    }
}
void finish(const float* tile, int rows, int cols, const GemmEpilogue& e, int64_t row0, int64_t col0) {
    e.out == Dtype::bf16 ? finish_as<OutBf16>(tile, rows, cols, e, row0, col0)
                         : finish_as<OutF32>(tile, rows, cols, e, row0, col0);
}

constexpr GemmVariant make_variant(const char* name, bool (*supported)()) {
    return {name, supported, MR, NR, ROWS_2, ROWS_4, width_of, kernel, pack, finish};
}

} // namespace
} // namespace nvl
