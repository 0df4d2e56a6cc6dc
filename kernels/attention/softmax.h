// Scores of up to 16 rows against a block of 64 keys: mask, softcap, online softmax. Scores are in units of
// log2: 2^x is cheaper than e^x.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/attention/core.h"
#include "kernels/cpu/simd.h"

namespace nvl::attend {

/// -1 in those of the lanes c, c + 1, ... that are in the range.
inline simd::i32x16 lanes_in(const Range& r, int64_t c) {
    simd::i32x16 n = simd::lane_index() + int32_t(c);
    return (n >= int32_t(r.from)) & (n < int32_t(r.to));
}

struct Scores {
    static constexpr double LOG2E = 1.4426950408889634;
    float unit; // factor of q
    bool capped;
    float inverse_cap, cap;
    Scores(double scale, double softcap)
        : unit(float(scale * LOG2E)), capped(softcap != 0),
          inverse_cap(capped ? float(1 / (softcap * LOG2E)) : 0), cap(float(softcap * LOG2E)) {}
    static float natural(float x) { return float(x / LOG2E); }
    static float binary(float x) { return float(x * LOG2E); }

    /// The score as the softmax sees it: capped, -inf where masked.
    simd::f32x16 masked(simd::f32x16 s, const Range& range, int64_t c) const {
        if (capped) s = simd::tanh(s * simd::all(inverse_cap)) * simd::all(cap);
        if (range.holds(c, c + simd::LANES)) return s;
        return lanes_in(range, c) ? s : simd::all(-INFINITY);
    }

    /// Columns [c0, c1) of n rows of scores p become probabilities relative to the new maxima m; l is summed;
    /// alpha is what was summed before must be multiplied by.
    void softmax(float* p, int64_t n, const Range* range, int64_t c0, int64_t c1, float* m, float* l,
                 float* alpha) const {
        using namespace simd;
        alignas(64) float top[LANES] = {}, sums[LANES] = {};
        std::memcpy(top, m, sizeof top);
        for (int64_t i = 0; i < n; i++) {
            float* row = p + i * BLOCK;
            f32x16 high = all(top[i]);
            bool plain = !capped && range[i].holds(c0, c1);
            for (int64_t c = c0; c < c1; c += LANES) {
                f32x16 s = load(row + c);
                if (!plain) store(row + c, s = masked(s, range[i], c));
                high = max(high, s);
            }
            top[i] = max(high);
        }
        f32x16 old = load(m), now = load(top), base = now > all(-INFINITY) ? now : f32x16{};
        f32x16 a = exp2(old - base);
        store(alpha, a), store(m, now), store(top, base);
        for (int64_t i = 0; i < n; i++) {
            float* row = p + i * BLOCK;
            f32x16 sum16 = {};
            for (int64_t c = c0; c < c1; c += LANES) {
                f32x16 e = exp2(load(row + c) - all(top[i]));
                store(row + c, e);
                sum16 += e;
            }
            sums[i] = sum(sum16);
        }
        store(l, fma(load(l), a, load(sums)));
    }
};

} // namespace nvl::attend
