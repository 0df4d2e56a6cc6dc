// One row of the norms, shared by the plain and the residual-fused ops: statistics, output, gradients. The
// same functions, so a fused op has the bits of its composition. A weight enters as offset + w (Gemma stores
// w - 1).
#pragma once
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/sums.h"

namespace nvl {

template <class X> sum_t<X> rms_inverse(const X* x, int64_t C, double eps) {
    using A = sum_t<X>;
    A squares = lane_sum<A>(C, [&](int64_t c) { return A(x[c]) * A(x[c]); });
    return 1 / std::sqrt(squares / A(C) + A(eps));
}

template <class X> void rms_apply(X* y, const X* x, const X* w, int64_t C, sum_t<X> r, double offset) {
    using A = sum_t<X>;
    A o = A(offset);
    for (int64_t c = 0; c < C; c++) y[c] = X(A(x[c]) * r * (o + A(w[c])));
}

template <class D, class X>
void rms_weight_row(sum_t<X>* dw, const D* dy, const X* x, int64_t C, sum_t<X> r) {
    using A = sum_t<X>;
    for (int64_t c = 0; c < C; c++) dw[c] += A(dy[c]) * A(x[c]) * r;
}

/// The factor of x in dx = r (dy w - x factor).
template <class D, class X>
sum_t<X> rms_factor(const D* dy, const X* x, const X* w, int64_t C, sum_t<X> r, double offset) {
    using A = sum_t<X>;
    A o = A(offset);
    return r * r * lane_sum<A>(C, [&](int64_t c) { return A(dy[c]) * (o + A(w[c])) * A(x[c]); }) / A(C);
}

template <class X> struct Moments { sum_t<X> mean, r; };
template <class X> Moments<X> layer_moments(const X* x, int64_t C, double eps) {
    using A = sum_t<X>;
    A mean = lane_sum<A>(C, [&](int64_t c) { return A(x[c]); }) / A(C);
    A squares = lane_sum<A>(C, [&](int64_t c) { return (A(x[c]) - mean) * (A(x[c]) - mean); });
    return {mean, 1 / std::sqrt(squares / A(C) + A(eps))};
}

template <class X>
void layer_apply(X* y, const X* x, const X* w, const X* b, int64_t C, Moments<X> m) { // b may be null
    using A = sum_t<X>;
    if (b)
        for (int64_t c = 0; c < C; c++) y[c] = X((A(x[c]) - m.mean) * m.r * A(w[c]) + A(b[c]));
    else
        for (int64_t c = 0; c < C; c++) y[c] = X((A(x[c]) - m.mean) * m.r * A(w[c]));
}

template <class X>
void layer_weight_row(sum_t<X>* dw, sum_t<X>* db, const X* dy, const X* x, int64_t C, Moments<X> m) {
    using A = sum_t<X>;
    for (int64_t c = 0; c < C; c++) {
        dw[c] += A(dy[c]) * ((A(x[c]) - m.mean) * m.r);
        db[c] += A(dy[c]);
    }
}

/// The means in dx = r (g - mean(g) - xhat mean(g xhat)), g = dy w.
template <class X> struct LayerMeans { sum_t<X> g, gx; };
template <class X> LayerMeans<X> layer_means(const X* dy, const X* x, const X* w, int64_t C, Moments<X> m) {
    using A = sum_t<X>;
    A g = lane_sum<A>(C, [&](int64_t c) { return A(dy[c]) * A(w[c]); });
    A gx = lane_sum<A>(C, [&](int64_t c) { return A(dy[c]) * A(w[c]) * ((A(x[c]) - m.mean) * m.r); });
    return {g / A(C), gx / A(C)};
}

/// The same value to two gradients, in one loop where both write.
template <class X, class F> void put_both(const Acc& a, const Acc& b, int64_t i, int64_t C, F value) {
    if (a && b && !a.add && !b.add) {
        X *p = a.row<X>(i), *q = b.row<X>(i);
#pragma GCC ivdep
        for (int64_t c = 0; c < C; c++) {
            X v = X(value(c));
            p[c] = v, q[c] = v;
        }
        return;
    }
    if (a) put_row(a, a.row<X>(i), C, value);
    if (b) put_row(b, b.row<X>(i), C, value);
}

} // namespace nvl
