// bf16 and f16 on the host: to nearest, ties to even; NaN stays NaN.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace vgpu::cublaslt {

inline uint32_t bits_of(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return u;
}
inline float float_of(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}

inline float from_bf16(uint16_t h) { return float_of(uint32_t(h) << 16); }
inline uint16_t to_bf16(float x) {
    uint32_t u = bits_of(x);
    if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

inline float from_f16(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00) return float_of(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest >= 0x400) return float_of(sign | ((rest << 13) + (112u << 23)));
    return float_of(sign | bits_of(float(rest) * 0x1p-24f));
}
inline uint16_t to_f16(float x) {
    uint32_t u = bits_of(x);
    uint16_t sign = uint16_t(u >> 16 & 0x8000);
    u &= 0x7fffffff;
    if (u > 0x7f800000) return sign | 0x7fff;
    if (u >= 0x477ff000) return sign | 0x7c00;                                      // rounds beyond 65504
    if (u < 0x38800000) return sign | uint16_t(std::lrintf(float_of(u) * 0x1p24f)); // below 2^-14
    u -= 112u << 23;
    return sign | uint16_t((u + 0xfff + ((u >> 13) & 1)) >> 13);
}

} // namespace vgpu::cublaslt
