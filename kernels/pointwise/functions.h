// The functions behind activation and gated, as value and slope. Each is a few lines of straight code, so
// that loops over them become vector code.
#pragma once
#include "kernels/cpu/math.h"

namespace nvl::functions {

struct Silu {
    template <class A> static A value(A x) { return x * vsigmoid(x); }
    template <class A> static A slope(A x) {
        A s = vsigmoid(x);
        return s + x * s * (1 - s);
    }
};
struct GeluTanh {
    static constexpr double K = 2 * 0.79788456080286535588; // 2 sqrt(2 / pi)
    template <class A> static A inner(A x) { return A(K) * (x + A(0.044715) * x * x * x); }
    template <class A> static A value(A x) { return x * vsigmoid(inner(x)); }
    template <class A> static A slope(A x) {
        A s = vsigmoid(inner(x));
        return s + x * s * (1 - s) * A(K) * (1 + A(3 * 0.044715) * x * x);
    }
};
struct GeluErf {
    template <class A> static A phi(A x) { return A(0.5) * (1 + verf(x * A(0.70710678118654752440))); }
    template <class A> static A value(A x) { return x * phi(x); }
    template <class A> static A slope(A x) {
        return phi(x) + x * A(0.39894228040143267794) * vexp(A(-0.5) * x * x);
    }
};
struct QuickGelu {
    template <class A> static A value(A x) { return x * vsigmoid(A(1.702) * x); }
    template <class A> static A slope(A x) {
        A s = vsigmoid(A(1.702) * x);
        return s + A(1.702) * x * s * (1 - s);
    }
};
struct Relu2 {
    template <class A> static A value(A x) { return x < 0 ? A(0) : x * x; }
    template <class A> static A slope(A x) { return x < 0 ? A(0) : 2 * x; }
};
struct Relu {
    template <class A> static A value(A x) { return x < 0 ? A(0) : x; }
    template <class A> static A slope(A x) { return x > 0 ? A(1) : A(0); }
};
struct Sigmoid {
    template <class A> static A value(A x) { return vsigmoid(x); }
    template <class A> static A slope(A x) {
        A s = vsigmoid(x);
        return s * (1 - s);
    }
};
struct Tanh {
    template <class A> static A value(A x) { return vtanh(x); }
    template <class A> static A slope(A x) {
        A t = vtanh(x);
        return 1 - t * t;
    }
};

} // namespace nvl::functions
