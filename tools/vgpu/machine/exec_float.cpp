// f32 and f64 arithmetic. The .approx functions are the host's, which are more accurate than the device's.
#include "tools/vgpu/machine/decoder.h"
#include "tools/vgpu/machine/numbers.h"

namespace vgpu {
namespace {

float fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
float sat(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; } // NaN becomes 0
float same(float x) { return x; }
float nan_float(float x) { return std::isnan(x) ? canonical_nan() : x; }

/// 2^x by 2^round(x) times a polynomial, about 1 ulp; vectorises.
float power2(float x) {
    float c = x < -160.0f ? -160.0f : x > 130.0f ? 130.0f : x;
    float n = __builtin_rintf(c), f = c - n;
    float p = 1.5353362e-4f;
    p = fma32(p, f, 1.3398874e-3f);
    p = fma32(p, f, 9.6184373e-3f);
    p = fma32(p, f, 5.5503324e-2f);
    p = fma32(p, f, 2.4022648e-1f);
    p = fma32(p, f, 6.9314720e-1f);
    p = fma32(p, f, 1.0f);
    int32_t whole = int32_t(n), half = whole / 2, rest = whole - half; // two factors: denormal results
    float v = p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((rest + 127) << 23);
    return x != x ? x : v;
}

/// The forms .ftz, .sat and both: IN treats operands, OUT results.
template <float (*IN)(float), float (*OUT)(float)> void add_forms(Table& t, const std::string& form) {
    t.add("add[.rn]" + form, of<[](float a, float b) { return OUT(IN(a) + IN(b)); }>());
    t.add("sub[.rn]" + form, of<[](float a, float b) { return OUT(IN(a) - IN(b)); }>());
    t.add("mul[.rn]" + form, of<[](float a, float b) { return OUT(IN(a) * IN(b)); }>());
    t.add("fma.rn" + form, of<[](float a, float b, float c) { return OUT(fma32(IN(a), IN(b), IN(c))); }>());
    t.add("mad[.rn]" + form, of<[](float a, float b, float c) { return OUT(fma32(IN(a), IN(b), IN(c))); }>());
}

template <Round R, float (*IN)(float), float (*OUT)(float)>
void add_directed(Table& t, const std::string& form) {
    t.add("add" + form, of<[](float a, float b) { return OUT(to_f32(sum_to_odd(IN(a), IN(b)), R)); }>());
    t.add("sub" + form, of<[](float a, float b) { return OUT(to_f32(sum_to_odd(IN(a), -IN(b)), R)); }>());
    t.add("mul" + form, of<[](float a, float b) { return OUT(to_f32(double(IN(a)) * IN(b), R)); }>());
    t.add("fma" + form,
          of<[](float a, float b, float c) { return OUT(to_f32(fma_to_odd(IN(a), IN(b), IN(c)), R)); }>());
    t.add("div" + form, of<[](float a, float b) { return OUT(to_f32(quotient_to_odd(IN(a), IN(b)), R)); }>());
    t.add("rcp" + form, of<[](float a) { return OUT(to_f32(quotient_to_odd(1, IN(a)), R)); }>());
    t.add("sqrt" + form, of<[](float a) { return OUT(to_f32(root_to_odd(IN(a)), R)); }>());
}

template <float (*Z)(float)> void add_unary(Table& t, const std::string& ftz) {
    const std::string f = ftz + ".f32";
    t.add("abs" + f, of<[](float a) { return Z(std::fabs(a)); }>());
    t.add("neg" + f, of<[](float a) { return Z(-a); }>());
    t.add("min" + f, of<[](float a, float b) { return nan_float(smaller<false>(Z(a), Z(b))); }>());
    t.add("max" + f, of<[](float a, float b) { return nan_float(larger<false>(Z(a), Z(b))); }>());
    t.add("min" + ftz + ".NaN.f32",
          of<[](float a, float b) { return nan_float(smaller<true>(Z(a), Z(b))); }>());
    t.add("max" + ftz + ".NaN.f32",
          of<[](float a, float b) { return nan_float(larger<true>(Z(a), Z(b))); }>());
    t.add("div.{rn,approx,full}" + f, of<[](float a, float b) { return Z(Z(a) / Z(b)); }>());
    t.add("rcp.{rn,approx}" + f, of<[](float a) { return Z(1.0f / Z(a)); }>());
    t.add("sqrt.{rn,approx}" + f, of<[](float a) { return Z(__builtin_sqrtf(Z(a))); }>());
    t.add("rsqrt.approx" + f, of<[](float a) { return Z(1.0f / __builtin_sqrtf(Z(a))); }>());
    t.add("ex2.approx" + f, of<[](float a) { return Z(power2(Z(a))); }>());
    t.add("lg2.approx" + f, of<[](float a) { return Z(std::log2(Z(a))); }>());
    t.add("sin.approx" + f, of<[](float a) { return Z(std::sin(Z(a))); }>());
    t.add("cos.approx" + f, of<[](float a) { return Z(std::cos(Z(a))); }>());
}

void add_double(Table& t) {
    t.add("add[.rn].f64", of<[](double a, double b) { return a + b; }>());
    t.add("sub[.rn].f64", of<[](double a, double b) { return a - b; }>());
    t.add("mul[.rn].f64", of<[](double a, double b) { return a * b; }>());
    t.add("{fma,mad}.rn.f64", of<[](double a, double b, double c) { return __builtin_fma(a, b, c); }>());
    t.add("div.rn.f64", of<[](double a, double b) { return a / b; }>());
    t.add("rcp.rn.f64", of<[](double a) { return 1 / a; }>());
    t.add("rcp.approx.ftz.f64", of<[](double a) { return 1 / a; }>());
    t.add("sqrt.rn.f64", of<[](double a) { return __builtin_sqrt(a); }>());
    t.add("rsqrt.approx[.ftz].f64", of<[](double a) { return 1 / __builtin_sqrt(a); }>());
    t.add("abs.f64", of<[](double a) { return std::fabs(a); }>());
    t.add("neg.f64", of<[](double a) { return -a; }>());
    t.add("min.f64", of<[](double a, double b) { return smaller<false>(a, b); }>());
    t.add("max.f64", of<[](double a, double b) { return larger<false>(a, b); }>());
    t.add("copysign.f64", of<[](double a, double b) { return std::copysign(b, a); }>());
}

/// A double to nearest whose exact value lies `error` beside it, by another rounding.
double directed(double v, double error, Round r) {
    if (error == 0 || !std::isfinite(v) || std::isnan(error)) return v;
    bool below = error < 0; // the exact value is
    if (r == Round::down || (r == Round::zero && v > 0)) return below ? std::nextafter(v, -INFINITY) : v;
    return below ? v : std::nextafter(v, INFINITY);
}
double sum_of(double a, double b, Round r) {
    double s = a + b, t = s - a;
    return directed(s, (a - (s - t)) + (b - t), r);
}
template <Round R> void add_directed_double(Table& t, const std::string& form) {
    t.add("add" + form, of<[](double a, double b) { return sum_of(a, b, R); }>());
    t.add("sub" + form, of<[](double a, double b) { return sum_of(a, -b, R); }>());
    t.add("mul" + form,
          of<[](double a, double b) { return directed(a * b, std::fma(a, b, -(a * b)), R); }>());
    t.add("div" + form, of<[](double a, double b) {
              double q = a / b, rest = std::fma(-q, b, a);
              return directed(q, b > 0 ? rest : -rest, R);
          }>());
    t.add("sqrt" + form, of<[](double a) {
              double s = std::sqrt(a);
              return directed(s, std::fma(-s, s, a), R);
          }>());
}

template <class F> void add_tests(Table& t, const std::string& type) {
    t.add("testp.finite" + type, of<[](F a) { return bool(std::isfinite(a)); }>());
    t.add("testp.infinite" + type, of<[](F a) { return bool(std::isinf(a)); }>());
    t.add("testp.number" + type, of<[](F a) { return !std::isnan(a); }>());
    t.add("testp.notanumber" + type, of<[](F a) { return bool(std::isnan(a)); }>());
    t.add("testp.normal" + type, of<[](F a) { return bool(std::isnormal(a)); }>());
    t.add("testp.subnormal" + type,
          of<[](F a) { return a != 0 && std::fabs(a) < std::numeric_limits<F>::min(); }>());
}

} // namespace

void add_float(Table& t) {
    add_forms<same, same>(t, ".f32");
    add_forms<flushed, flushed>(t, ".ftz.f32");
    add_forms<same, sat>(t, ".sat.f32");
    add_forms<flushed, sat>(t, ".ftz.sat.f32");
    add_directed<Round::zero, same, same>(t, ".rz.f32");
    add_directed<Round::down, same, same>(t, ".rm.f32");
    add_directed<Round::up, same, same>(t, ".rp.f32");
    add_directed<Round::zero, flushed, flushed>(t, ".rz.ftz.f32");
    add_directed<Round::down, flushed, flushed>(t, ".rm.ftz.f32");
    add_directed<Round::up, flushed, flushed>(t, ".rp.ftz.f32");
    add_unary<same>(t, "");
    add_unary<flushed>(t, ".ftz");
    t.add("tanh.approx.f32", of<[](float a) { return std::tanh(a); }>());
    t.add("copysign.f32", of<[](float a, float b) { return std::copysign(b, a); }>());
    add_double(t);
    add_directed_double<Round::zero>(t, ".rz.f64");
    add_directed_double<Round::down>(t, ".rm.f64");
    add_directed_double<Round::up>(t, ".rp.f64");
    add_tests<float>(t, ".f32");
    add_tests<double>(t, ".f64");
}

} // namespace vgpu
