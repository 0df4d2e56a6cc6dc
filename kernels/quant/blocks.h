// Block-quantised storage: the bytes of each GGUF block type and the value of each of its elements.
//
// A block holds E = 32 or 256 neighbours of a row: small integers n and what scales them. The members of
// each struct are the bytes of the file in order; above it stands the value of element i. d, m, dmin are
// f16. All arithmetic is in f32 with exactly the parentheses written here and one rounding per operation,
// so values are bit-equal to the format's reference implementation (a NaN is a NaN).
//
// "low" and "high" are the nibbles of a byte. The types of 32 share one order of nibbles:
//     n(i) = q[i] low for i < 16, q[i - 16] high from there on
// The K types cut their 256 elements into runs with a scale of their own.
#pragma once
#include <bit>
#include <cstdint>

#include "engine/io/block_format.h"

namespace nvl::quant {

/// Branch-free, so that loops over it vectorise; NaN keeps its payload.
inline float half_to_float(uint16_t h) {
    uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
    float value =
        std::bit_cast<float>(magnitude) * 0x1p112f; // moves the exponent's bias, subnormals included
    uint32_t bits = (h & 0x7c00) == 0x7c00 ? 0x7f800000 | magnitude : std::bit_cast<uint32_t>(value);
    return std::bit_cast<float>(bits | uint32_t(h & 0x8000) << 16);
}

// Packed: the bytes of a file may start anywhere. __restrict: without it the stores to y might change q, and
// nothing vectorises.

/// value = d * (n(i) - 8)
struct [[gnu::packed]] Q4_0 {
    static constexpr int ELEMENTS = 32;
    uint16_t d;
    uint8_t q[16];
    void decode(float* __restrict y) const;
};

/// value = d * n(i) + m
struct [[gnu::packed]] Q4_1 {
    static constexpr int ELEMENTS = 32;
    uint16_t d, m;
    uint8_t q[16];
    void decode(float* __restrict y) const;
};

/// value = d * (n(i) + 16 * (bit i of h) - 16)
struct [[gnu::packed]] Q5_0 {
    static constexpr int ELEMENTS = 32;
    uint16_t d;
    uint32_t h;
    uint8_t q[16];
    void decode(float* __restrict y) const;
};

/// value = d * (n(i) + 16 * (bit i of h)) + m
struct [[gnu::packed]] Q5_1 {
    static constexpr int ELEMENTS = 32;
    uint16_t d, m;
    uint32_t h;
    uint8_t q[16];
    void decode(float* __restrict y) const;
};

/// value = d * q[i]
struct [[gnu::packed]] Q8_0 {
    static constexpr int ELEMENTS = 32;
    uint16_t d;
    int8_t q[32];
    void decode(float* __restrict y) const;
};

/// 16 runs of 16, s[run] = scale in the low nibble, minimum in the high one:
/// value = (d * scale) * n - dmin * minimum,   n = bits 2k and 2k + 1 of q[32 (i / 128) + i % 32],
///                                             k = i % 128 / 32
struct [[gnu::packed]] Q2_K {
    static constexpr int ELEMENTS = 256;
    uint8_t s[16], q[64];
    uint16_t d, dmin;
    void decode(float* __restrict y) const;
};

/// 16 runs of 16 with scales of 6 bits: the low 4 are nibble run / 8 of s[run % 8], the high 2 are bits
/// 2 (run / 4) and up of s[8 + run % 4].
/// value = (d * (scale - 32)) * (n - 4),   low 2 bits of n as in Q2_K, bit 2 is bit i / 32 of h[i % 32]
struct [[gnu::packed]] Q3_K {
    static constexpr int ELEMENTS = 256;
    uint8_t h[32], q[64], s[12];
    uint16_t d;
    void decode(float* __restrict y) const;
};

/// 8 runs of 32 with a scale and a minimum of 6 bits each (scale_min):
/// value = (d * scale) * n - dmin * minimum,   n = q[32 (run / 2) + i % 32] low in even runs,
///                                             high in odd ones
struct [[gnu::packed]] Q4_K {
    static constexpr int ELEMENTS = 256;
    uint16_t d, dmin;
    uint8_t s[12], q[128];
    void decode(float* __restrict y) const;
};

/// As Q4_K, with bit `run` of h[i % 32] as bit 4 of n.
struct [[gnu::packed]] Q5_K {
    static constexpr int ELEMENTS = 256;
    uint16_t d, dmin;
    uint8_t s[12], h[32], q[128];
    void decode(float* __restrict y) const;
};

/// 16 runs of 16. Half a = i / 128, quarter k = i % 128 / 32, j = i % 32:
/// value = (d * s[run]) * (n - 32),   low 4 bits of n = nibble k / 2 of l[64 a + 32 (k % 2) + j],
///                                    high 2 = bits 2k and 2k + 1 of h[32 a + j]
struct [[gnu::packed]] Q6_K {
    static constexpr int ELEMENTS = 256;
    uint8_t l[128], h[64];
    int8_t s[16];
    uint16_t d;
    void decode(float* __restrict y) const;
};

/// value = d * q[i];   sums of 16 neighbours serve integer dot products
struct [[gnu::packed]] Q8_K {
    static constexpr int ELEMENTS = 256;
    float d;
    int8_t q[256];
    int16_t sums[16];
    void decode(float* __restrict y) const;
};

/// value = d * LEVELS[n(i)],   16 uneven levels in blocks.cpp
struct [[gnu::packed]] IQ4_NL {
    static constexpr int ELEMENTS = 32;
    uint16_t d;
    uint8_t q[16];
    void decode(float* __restrict y) const;
};

/// 8 runs of 32, each ordered as n(i) over its 16 bytes of q; scales of 6 bits: the low 4 are nibble run % 2
/// of sl[run / 2], the high 2 are bits 2 run and up of sh.   value = (d * (scale - 32)) * LEVELS[n]
struct [[gnu::packed]] IQ4_XS {
    static constexpr int ELEMENTS = 256;
    uint16_t d, sh;
    uint8_t sl[4], q[128];
    void decode(float* __restrict y) const;
};

/// value = 2^(e - 127) * E2M1[n(i)]   (OCP Microscaling Formats v1.0; kept as 2^(e - 128) * twice the level)
struct [[gnu::packed]] MXFP4 {
    static constexpr int ELEMENTS = 32;
    uint8_t e, q[16];
    void decode(float* __restrict y) const;
};

/// The 6-bit scale and minimum of run r in the 12 packed bytes of Q4_K and Q5_K: runs 0-3 take the low six
/// bits of bytes r and r + 4; runs 4-7 the nibbles of byte r + 4 and, on top, the high bits of r - 4 and r.
inline void scale_min(const uint8_t* s, int r, int& scale, int& min) {
    if (r < 4)
        scale = s[r] & 63, min = s[r + 4] & 63;
    else
        scale = (s[r + 4] & 15) | (s[r - 4] >> 6) << 4, min = s[r + 4] >> 4 | (s[r] >> 6) << 4;
}

} // namespace nvl::quant
