#include "kernels/quant/blocks.h"

namespace nvl::quant {

void Q4_0::decode(float* __restrict y) const {
    float scale = half_to_float(d);
    for (int j = 0; j < 16; j++) {
        y[j] = scale * float((q[j] & 15) - 8);
        y[j + 16] = scale * float((q[j] >> 4) - 8);
    }
}
void Q4_1::decode(float* __restrict y) const {
    float scale = half_to_float(d), add = half_to_float(m);
    for (int j = 0; j < 16; j++) {
        y[j] = scale * float(q[j] & 15) + add;
        y[j + 16] = scale * float(q[j] >> 4) + add;
    }
}
void Q5_0::decode(float* __restrict y) const {
    float scale = half_to_float(d);
    uint32_t high = h;
    for (int j = 0; j < 16; j++) {
        y[j] = scale * float(int((q[j] & 15) | (high >> j & 1) << 4) - 16);
        y[j + 16] = scale * float(int(q[j] >> 4 | (high >> (j + 16) & 1) << 4) - 16);
    }
}
void Q5_1::decode(float* __restrict y) const {
    float scale = half_to_float(d), add = half_to_float(m);
    uint32_t high = h;
    for (int j = 0; j < 16; j++) {
        y[j] = scale * float((q[j] & 15) | (high >> j & 1) << 4) + add;
        y[j + 16] = scale * float(q[j] >> 4 | (high >> (j + 16) & 1) << 4) + add;
    }
}
void Q8_0::decode(float* __restrict y) const {
    float scale = half_to_float(d);
    for (int j = 0; j < 32; j++) y[j] = scale * float(q[j]);
}

void Q2_K::decode(float* __restrict y) const {
    float scale = half_to_float(d), least = half_to_float(dmin);
    for (int run = 0; run < 16; run++) {
        float a = scale * float(s[run] & 15), b = least * float(s[run] >> 4);
        const uint8_t* p = q + 32 * (run / 8) + 16 * (run % 2);
        int shift = run % 8 / 2 * 2;
        for (int j = 0; j < 16; j++) y[16 * run + j] = a * float(p[j] >> shift & 3) - b;
    }
}
void Q3_K::decode(float* __restrict y) const {
    float scale = half_to_float(d);
    for (int run = 0; run < 16; run++) {
        int six = (s[run % 8] >> run / 8 * 4 & 15) | (s[8 + run % 4] >> run / 4 * 2 & 3) << 4;
        float a = scale * float(six - 32);
        const uint8_t *p = q + 32 * (run / 8) + 16 * (run % 2), *high = h + 16 * (run % 2);
        int shift = run % 8 / 2 * 2, bit = run / 2;
        for (int j = 0; j < 16; j++)
            y[16 * run + j] = a * float(((p[j] >> shift & 3) | (high[j] >> bit & 1) << 2) - 4);
    }
}
void Q4_K::decode(float* __restrict y) const {
    float scale = half_to_float(d), least = half_to_float(dmin);
    for (int run = 0; run < 8; run += 2) { // the two runs of the same bytes: shifts by a constant vectorise
        int six[2], min[2];
        scale_min(s, run, six[0], min[0]), scale_min(s, run + 1, six[1], min[1]);
        float a0 = scale * float(six[0]), b0 = least * float(min[0]);
        float a1 = scale * float(six[1]), b1 = least * float(min[1]);
        const uint8_t* p = q + 16 * run;
        for (int j = 0; j < 32; j++) y[32 * run + j] = a0 * float(p[j] & 15) - b0;
        for (int j = 0; j < 32; j++) y[32 * run + 32 + j] = a1 * float(p[j] >> 4) - b1;
    }
}
void Q5_K::decode(float* __restrict y) const {
    float scale = half_to_float(d), least = half_to_float(dmin);
    for (int run = 0; run < 8; run++) {
        int six, min;
        scale_min(s, run, six, min);
        float a = scale * float(six), b = least * float(min);
        const uint8_t* p = q + 32 * (run / 2);
        int shift = run % 2 * 4;
        for (int j = 0; j < 32; j++)
            y[32 * run + j] = a * float((p[j] >> shift & 15) | (h[j] >> run & 1) << 4) - b;
    }
}
void Q6_K::decode(float* __restrict y) const {
    float scale = half_to_float(d);
    for (int run = 0; run < 16; run++) {
        float a = scale * float(s[run]);
        int half = run / 8, quarter = run % 8 / 2, from = 16 * (run % 2);
        const uint8_t *low = l + 64 * half + 32 * (quarter % 2) + from, *high = h + 32 * half + from;
        int shift = quarter / 2 * 4;
        for (int j = 0; j < 16; j++)
            y[16 * run + j] = a * float(((low[j] >> shift & 15) | (high[j] >> 2 * quarter & 3) << 4) - 32);
    }
}
void Q8_K::decode(float* __restrict y) const {
    for (int j = 0; j < 256; j++) y[j] = d * float(q[j]);
}

// The 16 levels of IQ4_NL and IQ4_XS; those of MXFP4 are twice the E2M1 values.
static constexpr int8_t LEVELS[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
static constexpr int8_t E2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void IQ4_NL::decode(float* __restrict y) const {
    float scale = half_to_float(d);
    for (int j = 0; j < 16; j++) {
        y[j] = scale * float(LEVELS[q[j] & 15]);
        y[j + 16] = scale * float(LEVELS[q[j] >> 4]);
    }
}
void IQ4_XS::decode(float* __restrict y) const {
    float scale = half_to_float(d);
    for (int run = 0; run < 8; run++) {
        int six = (sl[run / 2] >> run % 2 * 4 & 15) | (sh >> 2 * run & 3) << 4;
        float a = scale * float(six - 32);
        for (int j = 0; j < 16; j++) {
            y[32 * run + j] = a * float(LEVELS[q[16 * run + j] & 15]);
            y[32 * run + j + 16] = a * float(LEVELS[q[16 * run + j] >> 4]);
        }
    }
}
void MXFP4::decode(float* __restrict y) const {
    // 2^(e - 128) by its bits; the two smallest are subnormal
    float scale = std::bit_cast<float>(e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23);
    for (int j = 0; j < 16; j++) {
        y[j] = scale * float(E2M1[q[j] & 15]);
        y[j + 16] = scale * float(E2M1[q[j] >> 4]);
    }
}

} // namespace nvl::quant
