// Element types and the one helper that turns a run-time type into a template argument.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "engine/base/check.h"

namespace nvl {

/// bfloat16: the upper half of a float. Rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
    uint16_t bits = 0;
    bf16() = default;
    bf16(float f) {
        uint32_t u = std::bit_cast<uint32_t>(f);
        bits = f != f ? 0x7fc0 : uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
    operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

/// IEEE 754 half, for reading and writing files. Rounds to nearest, ties to even.
struct f16 {
    uint16_t bits = 0;
    f16() = default;
    f16(float f);
    operator float() const;
};

/// What one element of a buffer is. `blocks` stands for block-quantised bytes: a tensor of it is u8 to the
/// engine, and the kernel that reads it knows the block format.
enum class Dtype : uint8_t { f64, f32, bf16, f16, i32, u8 };
constexpr int64_t size_of(Dtype d) {
    constexpr int64_t bytes[] = {8, 4, 2, 2, 4, 1};
    return bytes[int(d)];
}
constexpr const char* name_of(Dtype d) {
    constexpr const char* names[] = {"f64", "f32", "bf16", "f16", "i32", "u8"};
    return names[int(d)];
}
Dtype dtype_from(
    const std::string& name); // "f32", "bf16", ...; an unknown name is an error that lists the known ones
constexpr bool is_float(Dtype d) { return d != Dtype::i32 && d != Dtype::u8; }
template <class X> constexpr Dtype dtype_of = std::is_same_v<X, double>    ? Dtype::f64
                                              : std::is_same_v<X, float>   ? Dtype::f32
                                              : std::is_same_v<X, bf16>    ? Dtype::bf16
                                              : std::is_same_v<X, f16>     ? Dtype::f16
                                              : std::is_same_v<X, int32_t> ? Dtype::i32
                                                                           : Dtype::u8;

/// Sums are carried in f32 for f32, bf16 and f16 storage, and in f64 for f64 (gradient checks).
template <class X> using sum_t = std::conditional_t<std::is_same_v<X, double>, double, float>;
constexpr Dtype sum_dtype(Dtype d) { return d == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

/// dispatch(x.dtype, [&]<class X> { ... }) over the types that kernels compute in.
template <class F> void dispatch(Dtype d, F f) {
    switch (d) {
    case Dtype::f64: return f.template operator()<double>();
    case Dtype::f32: return f.template operator()<float>();
    case Dtype::bf16: return f.template operator()<bf16>();
    default: fail("no kernel computes in %s; expected f64, f32 or bf16", name_of(d));
    }
}

} // namespace nvl
