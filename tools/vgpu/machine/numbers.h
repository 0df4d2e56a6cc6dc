// Arithmetic of the device's number formats that the host has not: 16-bit floats, other roundings, denormals
// flushed to zero. Written without branches where it matters, so that loops over lanes vectorise.
#pragma once
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>

namespace vgpu {

enum class Round : uint8_t { nearest, zero, down, up };

inline float flushed(float x) { return std::fabs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; }

constexpr float canonical_nan() { return std::bit_cast<float>(0x7fffffffu); }

struct Half {
    uint16_t bits;
};
struct Bf16 {
    uint16_t bits;
};
template <class T> struct Two { T low, high; };

inline float to_float(Bf16 x) { return std::bit_cast<float>(uint32_t(x.bits) << 16); }
inline float to_float(Half x) {
    uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
    uint32_t normal = (rest << 13) + (112u << 23);
    float denormal = float(int32_t(rest)) * 0x1p-24f;
    uint32_t v = rest >= 0x7c00 ? (rest << 13) | 0x7f800000u
                 : rest < 0x400 ? std::bit_cast<uint32_t>(denormal)
                                : normal;
    return std::bit_cast<float>(v | sign);
}
inline float to_float(float x) { return x; }

/// The exact value nearest to a double whose true value lies `error` beside it, marked so that a second
/// rounding to fewer bits comes out right: the last bit is one unless the value is exact.
inline double rounded_to_odd(double v, double error) {
    if (error == 0 || std::isnan(error) || std::isinf(v)) return v;
    int64_t bits = std::bit_cast<int64_t>(v);
    if (bits & 1) return v;
    if (v == 0) return error > 0 ? DBL_TRUE_MIN : -DBL_TRUE_MIN;
    return std::bit_cast<double>(bits + ((error > 0) == (v > 0) ? 1 : -1));
}
inline double sum_to_odd(double a, double b) {
    double s = a + b, t = s - a, error = (a - (s - t)) + (b - t);
    return rounded_to_odd(s, error);
}
inline double product_to_odd(double a, double b) { // of floats: exact
    return a * b;
}
inline double fma_to_odd(double a, double b, double c) { return sum_to_odd(a * b, c); } // a, b floats
inline double quotient_to_odd(double a, double b) {
    double q = a / b;
    if (!std::isfinite(q) || b == 0 || std::isinf(b)) return q;
    double r = std::fma(-q, b, a);
    return rounded_to_odd(q, b > 0 ? r : -r);
}
inline double root_to_odd(double a) {
    double s = std::sqrt(a);
    if (!std::isfinite(s) || s == 0) return s;
    return rounded_to_odd(s, std::fma(-s, s, a));
}

/// A double to a float with any rounding.
inline float to_f32(double v, Round r) {
    float f = float(v);
    if (r == Round::nearest || std::isnan(v) || double(f) == v) return f;
    bool above = double(f) > v;
    if (r == Round::down || (r == Round::zero && v > 0)) return above ? std::nextafter(f, -INFINITY) : f;
    return above ? f : std::nextafter(f, INFINITY);
}

/// A double to a format of `MANTISSA` stored bits and least exponent `LEAST` (of normals), to nearest even or
/// towards zero; the bits of sign, exponent and mantissa packed.
template <int MANTISSA, int EXPONENT_BITS> uint16_t to_small(double v, Round r = Round::nearest) {
    constexpr int BIAS = (1 << (EXPONENT_BITS - 1)) - 1, LEAST = 1 - BIAS;
    constexpr uint32_t INFINITE = ((1u << EXPONENT_BITS) - 1) << MANTISSA;
    uint32_t sign = std::signbit(v) ? 1u << (MANTISSA + EXPONENT_BITS) : 0;
    if (std::isnan(v)) return 0x7fff;
    double a = std::fabs(v);
    if (std::isinf(a)) return uint16_t(sign | INFINITE);
    int exponent = int(std::bit_cast<uint64_t>(a) >> 52) - 1023;
    exponent = exponent < LEAST ? LEAST : exponent;
    double unit = std::bit_cast<double>(uint64_t(exponent - MANTISSA + 1023) << 52);
    double scaled = a / unit; // exact: a power of two
    double whole = std::floor(scaled), rest = scaled - whole;
    bool up = r == Round::nearest ? rest > 0.5 || (rest == 0.5 && (int64_t(whole) & 1))
              : r == Round::up    ? rest > 0 && !sign
              : r == Round::down  ? rest > 0 && sign
                                  : false;
    uint32_t n = uint32_t(whole) + up; // has the implicit bit, if normal
    uint32_t packed = n + (uint32_t(exponent - LEAST) << MANTISSA);
    if (packed >= INFINITE)
        packed = r == Round::zero || (r == Round::up && sign) || (r == Round::down && !sign) ? INFINITE - 1
                                                                                             : INFINITE;
    return uint16_t(sign | packed);
}

template <class T> T from_double(double v, Round r = Round::nearest);
template <> inline Half from_double<Half>(double v, Round r) { return {to_small<10, 5>(v, r)}; }
template <> inline Bf16 from_double<Bf16>(double v, Round r) { return {to_small<7, 8>(v, r)}; }
template <> inline float from_double<float>(double v, Round r) { return to_f32(v, r); }

/// The common cases of a float, without branches.
inline Bf16 to_bf16(float x) {
    uint32_t u = std::bit_cast<uint32_t>(x);
    uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return {uint16_t((u & 0x7fffffff) > 0x7f800000 ? 0x7fff : rounded)};
}
inline Half to_half(float x) {
    uint32_t u = std::bit_cast<uint32_t>(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    uint32_t normal = (a - (112u << 23) + 0xfff + (a >> 13 & 1)) >> 13;
    uint32_t denormal =
        std::bit_cast<uint32_t>(std::bit_cast<float>(a) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    uint32_t v = a > 0x7f800000 ? 0x7fff : a >= 0x477ff000 ? 0x7c00 : a < 0x38800000 ? denormal : normal;
    return {uint16_t(a > 0x7f800000 ? v : v | sign)};
}
template <class T> T nearest(float x);
template <> inline Half nearest<Half>(float x) { return to_half(x); }
template <> inline Bf16 nearest<Bf16>(float x) { return to_bf16(x); }

/// The smaller/larger one; a NaN loses against a number unless NAN_WINS. -0 is below +0.
template <bool NAN_WINS, class F> F smaller(F a, F b) {
    F v = a < b || (a == b && std::signbit(a)) ? a : b;
    if (NAN_WINS) return std::isnan(a) || std::isnan(b) ? F(std::numeric_limits<F>::quiet_NaN()) : v;
    return std::isnan(a) ? b : std::isnan(b) ? a : v;
}
template <bool NAN_WINS, class F> F larger(F a, F b) { return -smaller<NAN_WINS>(F(-a), F(-b)); }

} // namespace vgpu
