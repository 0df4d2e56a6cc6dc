#include "engine/base/dtype.h"

namespace nvl {

f16::f16(float f) {
    uint32_t u = std::bit_cast<uint32_t>(f), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        bits = uint16_t(sign | 0x7e00); // NaN
    else if (u >= 0x477ff000)
        bits = uint16_t(sign | 0x7c00); // rounds to infinity
    else if (u <
             0x38800000) { // subnormal: add a constant whose last bit is the half's last bit, the FPU rounds
        float magic = std::bit_cast<float>(0x3f000000u);
        bits = uint16_t(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(u) + magic) - 0x3f000000u));
    } else
        bits = uint16_t(sign | ((u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13));
}
f16::operator float() const {
    uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
    if (exponent) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = float(mantissa) * 0x1p-24f;
    return sign ? -value : value;
}

Dtype dtype_from(const std::string& name) {
    for (int i = 0; i <= int(Dtype::u8); i++)
        if (name == name_of(Dtype(i))) return Dtype(i);
    fail("unknown dtype \"%s\"; expected f64, f32, bf16, f16, i32 or u8", name.c_str());
}

} // namespace nvl
