// Words for hand-written vector loops: 16 floats in a GCC vector, which is one register on AVX-512, two on
// AVX2, four on SSE. A lane is computed alike on all of them, so the instruction set changes no bit.
//
// Lanes never meet except in fold(), whose tree is fixed: 8, 4, 2, 1 lanes apart.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/base/dtype.h"

namespace nvl::simd {

#define NVL_WORD inline __attribute__((always_inline))

constexpr int LANES = 16;
typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef float f32x16_any __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t u16x16_any __attribute__((vector_size(32), aligned(2), may_alias));

NVL_WORD f32x16 all(float x) { return x - f32x16{}; }
NVL_WORD i32x16 all(int32_t x) { return x - i32x16{}; }
NVL_WORD i32x16 lane_index() { return i32x16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

NVL_WORD f32x16 load(const float* p) { return *reinterpret_cast<const f32x16_any*>(p); }
NVL_WORD f32x16 load(const bf16* p) {
    u16x16 h = *reinterpret_cast<const u16x16_any*>(p);
    return (f32x16)(__builtin_convertvector(h, u32x16) << 16);
}
NVL_WORD void store(float* p, f32x16 v) { *reinterpret_cast<f32x16_any*>(p) = v; }
/// Rounds as bf16(float) does: to nearest, ties to even; NaN stays NaN.
NVL_WORD void store(bf16* p, f32x16 v) {
    u32x16 u = (u32x16)v, r = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    r = v == v ? r : 0x7fc0u - u32x16{};
    *reinterpret_cast<u16x16_any*>(p) = __builtin_convertvector(r, u16x16);
}
/// The first n < 16 elements; the other lanes are 0, their memory is not touched.
template <class X> NVL_WORD f32x16 load_first(const X* p, int64_t n) {
    X part[LANES] = {};
    std::memcpy(part, p, size_t(n) * sizeof(X));
    return load(part);
}
template <class X> NVL_WORD void store_first(X* p, f32x16 v, int64_t n) {
    X part[LANES];
    store(part, v);
    std::memcpy(p, part, size_t(n) * sizeof(X));
}

/// a * b + c with one rounding.
NVL_WORD f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    union Halves {
        f32x16 v;
        __m256 h[2];
    } x{a}, y{b}, z{c};
    for (int i = 0; i < 2; i++) z.h[i] = _mm256_fmadd_ps(x.h[i], y.h[i], z.h[i]);
    return z.v;
#else
    for (int i = 0; i < LANES; i++) c[i] = std::fma(a[i], b[i], c[i]);
    return c;
#endif
}
/// a > b ? a : b, hence b where one is NaN.
NVL_WORD f32x16 max(f32x16 a, f32x16 b) { return a > b ? a : b; }

/// combine() over the lanes as a tree: lane l with l + 8, then 4, 2, 1.
template <class F> NVL_WORD float fold(f32x16 v, F combine) {
    typedef float f32x8 __attribute__((vector_size(32)));
    typedef float f32x4 __attribute__((vector_size(16)));
    f32x8 a = combine(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    f32x4 b = combine(__builtin_shufflevector(a, a, 0, 1, 2, 3), __builtin_shufflevector(a, a, 4, 5, 6, 7));
    f32x4 c = combine(b, __builtin_shufflevector(b, b, 2, 3, 2, 3));
    return combine(c, __builtin_shufflevector(c, c, 1, 1, 1, 1))[0];
}
NVL_WORD float sum(f32x16 v) {
    return fold(v, [](auto a, auto b) { return a + b; });
}
NVL_WORD float max(f32x16 v) {
    return fold(v, [](auto a, auto b) { return a > b ? a : b; });
}

/// 2^x for x <= 127, within 1 ulp; exact for 0, exactly 0 below -126; NaN stays NaN.
NVL_WORD f32x16 exp2(f32x16 x) {
    const f32x16 magic = all(12582912.f); // 1.5 * 2^23: adding it rounds to an integer, in the low bits
    f32x16 shifted = x + magic, f = x - (shifted - magic);
    f32x16 p = fma(all(1.545316294e-4f), f, all(1.339086336e-3f)); // 2^f on [-1/2, 1/2], error 2e-9
    p = fma(p, f, all(9.618082557e-3f)), p = fma(p, f, all(5.550357114e-2f));
    p = fma(p, f, all(2.402265076e-1f)), p = fma(p, f, all(6.931471880e-1f)), p = fma(p, f, all(1.f));
    f32x16 power = (f32x16)(((i32x16)shifted << 23) + 0x3f800000);
    return x < all(-126.f) ? f32x16{} : p * power;
}

/// tanh(x): an odd polynomial near 0, 1 - 2 / (e^2x + 1) beyond.
NVL_WORD f32x16 tanh(f32x16 x) {
    f32x16 a = x < f32x16{} ? -x : x, z = x * x;
    f32x16 p = fma(all(2.214902768e-3f), z, all(-8.272456764e-3f));
    p = fma(p, z, all(2.174618710e-2f)), p = fma(p, z, all(-5.395634940e-2f));
    p = fma(p, z, all(1.333329075e-1f)), p = fma(p, z, all(-3.333333308e-1f));
    f32x16 near = fma(p * z, x, x);
    f32x16 e = exp2((a > all(20.f) ? all(20.f) : a) * all(2.885390082f));
    f32x16 far = all(1.f) - all(2.f) / (e + all(1.f));
    far = x < f32x16{} ? -far : far;
    return a > all(0.65f) ? far : near;
}

/// Transposes a 16 x 16 block: four rounds of interleaving rows i and i + 8.
NVL_WORD void transpose(f32x16 (&r)[LANES]) {
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
        f32x16 t[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            t[2 * i] = __builtin_shufflevector(r[i], r[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6,
                                               22, 7, 23);
            t[2 * i + 1] = __builtin_shufflevector(r[i], r[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                                   29, 14, 30, 15, 31);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) r[i] = t[i];
    }
}

} // namespace nvl::simd
