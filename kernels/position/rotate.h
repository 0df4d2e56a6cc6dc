// The rotation of one head.
#pragma once
#include "engine/tensor/view.h"
#include "kernels/position/rope.h"

namespace nvl {

/// y = x turned by the row `angles` (d / 2 cosines, then d / 2 sines) or, for SIGN = -1, turned back. y must
/// not overlap x.
template <int SIGN, class Y, class X> inline void rotate(Y* __restrict y, const X* __restrict x,
                                                         const float* __restrict angles, int64_t d, int64_t D,
                                                         Pairs pairs) {
    using A = sum_t<X>;
    int64_t h = d / 2;
    const float *cosine = angles, *sine = angles + h;
    if (pairs == Pairs::half)
        for (int64_t i = 0; i < h; i++) {
            A a = A(x[i]), b = A(x[h + i]), c = A(cosine[i]), s = A(SIGN) * A(sine[i]);
            y[i] = Y(a * c - b * s);
            y[h + i] = Y(b * c + a * s);
        }
    else
        for (int64_t i = 0; i < h; i++) {
            A a = A(x[2 * i]), b = A(x[2 * i + 1]), c = A(cosine[i]), s = A(SIGN) * A(sine[i]);
            y[2 * i] = Y(a * c - b * s);
            y[2 * i + 1] = Y(b * c + a * s);
        }
    for (int64_t i = d; i < D; i++) y[i] = Y(A(x[i]));
}

/// Head h of token t of a (T, H, D) view.
template <class X> inline X* head(const View& v, int64_t t, int64_t h) {
    return v.as<X>() + t * v.stride[0] + h * v.stride[1];
}

constexpr int64_t MAX_HEAD = 1024; // heads go through a buffer on the stack

} // namespace nvl
