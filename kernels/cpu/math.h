// exp, log, sigmoid, tanh, erf, sin and cos without branches or calls, so that a loop over them becomes
// vector code and a lane gives the bits that a scalar gives. The float forms are polynomials (minimax fits of
// our own); the double overloads, for gradient checks, call the C++ library.
//
// Largest error in units in the last place, over dense sweeps (tests/unit/math.cpp):
//     vexp 1.1    vlog 1.0    vsigmoid 2.6    vtanh 2.4    verf 2.4
// NaN gives NaN everywhere; vexp(0) = 1, vexp(-inf) = 0, vexp(inf) = inf, results below the smallest normal
// number are rounded, not flushed; vlog(0) = -inf, vlog(negative) = NaN.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace nvl {

#define NVL_INLINE [[gnu::always_inline]] inline

/// a * b + c, rounded once where the machine can (a library call elsewhere would cost more than it is worth).
NVL_INLINE float fused(float a, float b, float c) {
#ifdef __FMA__
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}
NVL_INLINE double fused(double a, double b, double c) {
#ifdef __FMA__
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

namespace cpu_math {
/// x = n ln2 + r with |r| <= ln2 / 2 (Cody & Waite: ln2 in two parts). n comes out as float and as int, by
/// adding 1.5 * 2^23, which leaves the rounded value in the low bits of the sum.
struct Reduced {
    float r;
    int32_t n;
};
NVL_INLINE Reduced reduce_ln2(float x) {
    float shifted = fused(x, 1.44269504f, 12582912.0f), n = shifted - 12582912.0f;
    float r = fused(n, -0.693145752f, x);
    return {fused(n, -1.42860677e-6f, r), std::bit_cast<int32_t>(shifted) - 0x4b400000};
}
NVL_INLINE float power_of_two(int32_t n) { return std::bit_cast<float>((n + 127) << 23); }
} // namespace cpu_math

NVL_INLINE float vexp(float x) {
    x = x < -104.0f ? -104.0f : x; // rounds to 0; a NaN passes both comparisons
    x = x > 89.0f ? 89.0f : x;     // overflows to inf
    auto [r, n] = cpu_math::reduce_ln2(x);
    float p = fused(0.001381454039f, r, 0.008368745084f);
    p = fused(p, r, 0.04166839078f);
    p = fused(p, r, 0.166665204f);
    p = fused(p, r, 0.4999999343f);
    p = fused(p * r, r, r) + 1.0f;
    int32_t half = n >> 1; // two factors, since 2^n itself may be out of range
    return p * cpu_math::power_of_two(half) * cpu_math::power_of_two(n - half);
}

NVL_INLINE float vlog(float x) {
    bool tiny = x < 1.17549435e-38f;
    float scaled = tiny ? x * 8388608.0f : x;
    int32_t bits =
        int32_t(std::bit_cast<uint32_t>(scaled) - 0x3f3504f3u); // sqrt(1/2): m in [sqrt(1/2), sqrt(2))
    float e = float(bits >> 23) - (tiny ? 23.0f : 0.0f);
    float f = std::bit_cast<float>((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    float p = fused(0.06746640409f, f, -0.1167565053f);
    p = fused(p, f, 0.118881614f);
    p = fused(p, f, -0.1240558897f);
    p = fused(p, f, 0.142195525f);
    p = fused(p, f, -0.1666799586f);
    p = fused(p, f, 0.2000211865f);
    p = fused(p, f, -0.250000096f);
    p = fused(p, f, 0.333333126f);
    float f2 = f * f, y = fused(p * f, f2, e * -2.12194440e-4f);
    y = fused(f2, -0.5f, y);
    y = fused(e, 0.693359375f, f + y);
    constexpr float inf = std::numeric_limits<float>::infinity();
    y = x > 0 ? y : std::numeric_limits<float>::quiet_NaN();
    y = x == 0 ? -inf : y;
    return x == inf ? inf : y;
}

/// Needs no case for x < 0: nothing cancels there, and results are right down to the smallest normal number.
NVL_INLINE float vsigmoid(float x) { return 1.0f / (1.0f + vexp(-x)); }

/// With E = exp(2|x|) - 1, tanh |x| = E / (E + 2). E = 2^n (exp(r) - 1) + (2^n - 1) has no cancellation.
NVL_INLINE float vtanh(float x) {
    float a = std::abs(x);
    a = a > 10.0f ? 10.0f : a;
    auto [r, n] = cpu_math::reduce_ln2(a + a);
    float p = fused(0.001388251613f, r, 0.008366547101f);
    p = fused(p, r, 0.04166720072f);
    p = fused(p, r, 0.1666654342f);
    p = fused(p, r, 0.4999999815f);
    p = fused(p * r, r, r);
    float scale = cpu_math::power_of_two(n), e = fused(p, scale, scale - 1.0f);
    return std::copysign(e / (e + 2.0f), x);
}

/// x S(x^2) near zero, 1 - exp(-x L(x)) beyond.
NVL_INLINE float verf(float x) {
    float a = std::abs(x), t = x * x;
    float s = fused(8.298782732e-5f, t, -0.00081256796f);
    s = fused(s, t, 0.005199517813f);
    s = fused(s, t, -0.02685878185f);
    s = fused(s, t, 0.1128368425f);
    s = fused(s, t, -0.3761263299f);
    s = fused(s, t, 1.128379167f);
    float b = a > 3.95f ? 3.95f : a;
    float l = fused(1.123127551e-5f, b, -0.0003228035406f);
    l = fused(l, b, 0.003642457731f);
    l = fused(l, b, -0.02376206022f);
    l = fused(l, b, 0.1062368746f);
    l = fused(l, b, 0.6351513182f);
    l = fused(l, b, 1.12864849f);
    float far = 1.0f - vexp(-b * l);
    return a < 0.925f ? x * s : std::copysign(far, x);
}

/// sin and cos of a double to 1e-15, for |x| < 1e6: rope's angles are exact products of f32 numbers.
NVL_INLINE void vsincos(double x, double& sine, double& cosine) {
    double shifted = fused(x, 0.63661977236758134308, 6755399441055744.0), n = shifted - 6755399441055744.0;
    double r = fused(n, -1.57079632679489655800, x);
    r = fused(n, -6.12323399573676603587e-17, r);
    int64_t quadrant = std::bit_cast<int64_t>(shifted);
    double t = r * r;
    double s = fused(1.58947105824689993e-10, t, -2.50507345710847013e-8);
    s = fused(s, t, 2.75573136518532838e-6);
    s = fused(s, t, -0.000198412698301443944);
    s = fused(s, t, 0.00833333333332366217);
    s = fused(s, t, -0.166666666666666421);
    s = fused(s * t, r, r);
    double c = fused(-1.13679818804727128e-11, t, 2.08758977386829159e-9);
    c = fused(c, t, -2.75573157386132763e-7);
    c = fused(c, t, 2.48015872946280054e-5);
    c = fused(c, t, -0.00138888888888828391);
    c = fused(c, t, 0.0416666666666666513);
    c = fused(c * t, t, fused(t, -0.5, 1.0));
    double even = quadrant & 1 ? c : s, odd = quadrant & 1 ? s : c;
    sine = quadrant & 2 ? -even : even;
    cosine = (quadrant + 1) & 2 ? -odd : odd;
}

inline double vexp(double x) { return std::exp(x); }
inline double vlog(double x) { return std::log(x); }
inline double vsigmoid(double x) {
    double e = std::exp(-std::abs(x));
    return x < 0 ? e / (1 + e) : 1 / (1 + e);
}
inline double vtanh(double x) { return std::tanh(x); }
inline double verf(double x) { return std::erf(x); }

#undef NVL_INLINE

} // namespace nvl
