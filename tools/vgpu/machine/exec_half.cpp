// f16, bf16 and their pairs. Sums and products are exact in double or marked for a second rounding, so every
// result is rounded once.
#include "tools/vgpu/machine/decoder.h"
#include "tools/vgpu/machine/numbers.h"

namespace vgpu {
namespace {

/// Results of f32 operations on 16-bit numbers that are exact in f32 but for the final rounding.
template <class T> T rounded(float x) { return nearest<T>(x); }

template <class T> T sum(T a, T b) { return from_double<T>(sum_to_odd(to_float(a), to_float(b))); }
template <class T> T difference(T a, T b) { return from_double<T>(sum_to_odd(to_float(a), -to_float(b))); }
template <class T> T product(T a, T b) { return from_double<T>(double(to_float(a)) * double(to_float(b))); }
template <class T> T fused(T a, T b, T c) {
    return from_double<T>(fma_to_odd(to_float(a), to_float(b), to_float(c)));
}
template <class T> T negated(T a) { return {uint16_t(a.bits ^ 0x8000)}; }
template <class T> T absolute(T a) { return {uint16_t(a.bits & 0x7fff)}; }
template <class T> T relu(T a) {
    float x = to_float(a);
    return std::isnan(x) ? T{0x7fff} : x > 0 ? a : T{0};
}
template <class T> T sat(T a) {
    float x = to_float(a);
    return x > 0 ? (x < 1 ? a : nearest<T>(1.0f)) : T{0};
}
template <bool NAN_WINS, class T> T least(T a, T b) {
    return nearest<T>(smaller<NAN_WINS>(to_float(a), to_float(b)));
}
template <bool NAN_WINS, class T> T most(T a, T b) {
    return nearest<T>(larger<NAN_WINS>(to_float(a), to_float(b)));
}

/// One name for a scalar and, by halves, for the pair.
template <auto F, class T> void unary(Table& t, const std::string& name, const std::string& type) {
    t.add(name + type, of<[](T a) { return F(a); }>());
    t.add(name + type + "x2", of<[](Two<T> a) { return Two<T>{F(a.low), F(a.high)}; }>());
}
template <auto F, class T> void binary(Table& t, const std::string& name, const std::string& type) {
    t.add(name + type, of<[](T a, T b) { return F(a, b); }>());
    t.add(name + type + "x2", of<[](Two<T> a, Two<T> b) {
              return Two<T>{F(a.low, b.low), F(a.high, b.high)};
          }>());
}
template <auto F, class T> void ternary(Table& t, const std::string& name, const std::string& type) {
    t.add(name + type, of<[](T a, T b, T c) { return F(a, b, c); }>());
    t.add(name + type + "x2", of<[](Two<T> a, Two<T> b, Two<T> c) {
              return Two<T>{F(a.low, b.low, c.low), F(a.high, b.high, c.high)};
          }>());
}

template <class T> void add_type(Table& t, const std::string& type) {
    binary<sum<T>, T>(t, "add[.rn]", type);
    binary<difference<T>, T>(t, "sub[.rn]", type);
    binary<product<T>, T>(t, "mul[.rn]", type);
    ternary<fused<T>, T>(t, "fma.rn", type);
    ternary<[](T a, T b, T c) { return relu(fused(a, b, c)); }, T>(t, "fma.rn.relu", type);
    ternary<[](T a, T b, T c) { return sat(fused(a, b, c)); }, T>(t, "fma.rn.sat", type);
    binary<[](T a, T b) { return sat(sum(a, b)); }, T>(t, "add[.rn].sat", type);
    binary<[](T a, T b) { return sat(product(a, b)); }, T>(t, "mul[.rn].sat", type);
    unary<negated<T>, T>(t, "neg", type);
    unary<absolute<T>, T>(t, "abs", type);
    binary<least<false, T>, T>(t, "min", type);
    binary<most<false, T>, T>(t, "max", type);
    binary<least<true, T>, T>(t, "min.NaN", type);
    binary<most<true, T>, T>(t, "max.NaN", type);
    unary<[](T a) { return rounded<T>(std::exp2(to_float(a))); }, T>(t, "ex2.approx[.ftz]", type);
    unary<[](T a) { return rounded<T>(std::tanh(to_float(a))); }, T>(t, "tanh.approx", type);
}

} // namespace

void add_half(Table& t) {
    add_type<Half>(t, ".f16");
    add_type<Bf16>(t, ".bf16");
}

} // namespace vgpu
