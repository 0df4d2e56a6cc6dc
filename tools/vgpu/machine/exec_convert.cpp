// cvt: between all widths of integers and floats, with the roundings and saturations that PTX knows.
#include "tools/vgpu/machine/decoder.h"
#include "tools/vgpu/machine/numbers.h"

namespace vgpu {
namespace {

enum Flag : uint16_t { ROUND = 3, WHOLE = 4, SATURATE = 8, FLUSH = 16, RELU = 32 };

/// Lanes of a register of `width` bytes as T (the low part of them).
template <class T> void read(Warp& w, int32_t offset, uint32_t width, T* out) {
    auto copy = [&](auto* from) {
        for (int i = 0; i < 32; i++) {
            auto v = from[i];
            std::memcpy(&out[i], &v, sizeof(T));
        }
    };
    if (width == sizeof(T))
        std::memcpy(out, w.at<T>(offset), sizeof(T) * 32);
    else if constexpr (sizeof(T) <= 4) {
        if (width == 2) {
            if constexpr (sizeof(T) <= 2) copy(w.at<uint16_t>(offset));
        } else if (width == 4)
            copy(w.at<uint32_t>(offset));
        else
            copy(w.at<uint64_t>(offset));
    }
}
/// Lanes into a register that may be wider: integers are extended by their sign.
template <class T> void write(Warp& w, int32_t offset, uint32_t width, const T* v, uint32_t mask) {
    if (width == sizeof(T)) return blend(w.at<T>(offset), v, mask);
    auto extend = [&](auto* to) {
        using W = std::remove_pointer_t<decltype(to)>;
        if constexpr (std::is_integral_v<T>) {
            for (int i = 0; i < 32; i++) to[i] = mask >> i & 1 ? W(v[i]) : to[i];
        } else {
            for (int i = 0; i < 32; i++) {
                if (!(mask >> i & 1)) continue;
                to[i] = 0;
                std::memcpy(&to[i], &v[i], sizeof(T) < sizeof(W) ? sizeof(T) : sizeof(W));
            }
        }
    };
    if (width == 2)
        extend(w.at<uint16_t>(offset));
    else if (width == 4)
        extend(w.at<uint32_t>(offset));
    else
        extend(w.at<uint64_t>(offset));
}

template <class T> constexpr bool is_small = std::is_same_v<T, Half> || std::is_same_v<T, Bf16>;
template <class T> constexpr bool is_float = is_small<T> || std::is_floating_point_v<T>;

template <class F> F whole(F x, Round r) {
    switch (r) {
    case Round::nearest: return std::nearbyint(x);
    case Round::zero: return std::trunc(x);
    case Round::down: return std::floor(x);
    case Round::up: return std::ceil(x);
    }
    return x;
}

template <class D> D to_integer(double x, Round r) {
    if (std::isnan(x)) return 0;
    double v = whole(x, r);
    constexpr double low = double(std::numeric_limits<D>::min());
    constexpr double high =
        sizeof(D) == 8 ? (std::is_signed_v<D> ? 0x1p63 : 0x1p64) : double(std::numeric_limits<D>::max()) + 1;
    if (v < low) return std::numeric_limits<D>::min();
    if (v >= high) return std::numeric_limits<D>::max();
    return D(v);
}

/// A 64-bit integer as float or double with any rounding.
template <class D> D from_integer(__int128 x, Round r) {
    D f = D(x);
    if (r == Round::nearest || __int128(f) == x) return f;
    bool above = __int128(f) > x;
    bool down = r == Round::down || (r == Round::zero && x > 0);
    return down == above ? std::nextafter(f, down ? D(-INFINITY) : D(INFINITY)) : f;
}

template <class D, class S> D saturated(S x) {
    constexpr __int128 low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
    __int128 v = x;
    return D(v < low ? low : v > high ? high : v);
}

template <class S> auto value_of(S x, bool flush) {
    if constexpr (is_small<S>)
        return to_float(x);
    else if constexpr (std::is_same_v<S, float>)
        return flush ? flushed(x) : x;
    else
        return x;
}

/// One lane, all options.
template <class D, class S> D convert(S s, uint16_t flags) {
    Round r = Round(flags & ROUND);
    auto x = value_of(s, flags & FLUSH);
    if constexpr (!is_float<D> && !is_float<S>) {
        return flags & SATURATE ? saturated<D>(x) : D(x);
    } else if constexpr (!is_float<D>) {
        return to_integer<D>(double(x), r);
    } else if constexpr (!is_float<S>) {
        if constexpr (is_small<D>) {
            double wide = from_integer<double>(x, Round::zero); // 16-bit formats overflow long before 2^53
            return from_double<D>(wide, r);
        } else
            return from_integer<D>(x, r);
    } else {
        double v = double(x);
        if (flags & WHOLE) v = whole(v, r);
        if (flags & SATURATE) v = v > 0 ? (v < 1 ? v : 1.0) : 0.0;
        if (flags & RELU) v = v > 0 || v != v ? v : 0.0;
        if constexpr (std::is_same_v<D, double>)
            return v;
        else {
            D out = from_double<D>(v, flags & WHOLE ? Round::nearest : r);
            if constexpr (std::is_same_v<D, float>) {
                if (flags & FLUSH) out = flushed(out);
                if (out != out) out = canonical_nan();
            }
            return out;
        }
    }
}

/// r: d s; value: widths of the registers, d in the low half.
template <class D, class S> void cvt(Warp& w, const Op& op, uint32_t mask) {
    S s[32];
    D d[32];
    read(w, op.r[1], uint32_t(op.value >> 32), s);
    uint16_t f = op.flags;
    if constexpr (!is_float<D> && !is_float<S>) {
        if (!(f & SATURATE))
            for (int i = 0; i < 32; i++) d[i] = D(s[i]);
        else
            for (int i = 0; i < 32; i++) d[i] = convert<D, S>(s[i], f);
    } else if (f == 0 && std::is_same_v<S, float> && is_small<D>) { // the frequent ones vectorise
        if constexpr (std::is_same_v<S, float> && is_small<D>) {
            for (int i = 0; i < 32; i++) d[i] = nearest<D>(s[i]);
        }
    } else if (f == 0 && is_small<S> && std::is_same_v<D, float>) {
        if constexpr (is_small<S> && std::is_same_v<D, float>) {
            for (int i = 0; i < 32; i++) d[i] = to_float(s[i]);
        }
    } else if (f == 0 && !is_float<S> && sizeof(S) <= 4 && std::is_same_v<D, float>) {
        if constexpr (!is_float<S> && sizeof(S) <= 4 && std::is_same_v<D, float>) {
            for (int i = 0; i < 32; i++) d[i] = float(s[i]);
        }
    } else {
        for (int i = 0; i < 32; i++) {
            if (mask >> i & 1) d[i] = convert<D, S>(s[i], f);
        }
    }
    write(w, op.r[0], uint32_t(op.value), d, mask);
}

template <class D> Exec cvt_from(std::string_view s) {
    if (s == "u8") return cvt<D, uint8_t>;
    if (s == "s8") return cvt<D, int8_t>;
    if (s == "u16") return cvt<D, uint16_t>;
    if (s == "s16") return cvt<D, int16_t>;
    if (s == "u32") return cvt<D, uint32_t>;
    if (s == "s32") return cvt<D, int32_t>;
    if (s == "u64") return cvt<D, uint64_t>;
    if (s == "s64") return cvt<D, int64_t>;
    if (s == "f16") return cvt<D, Half>;
    if (s == "bf16") return cvt<D, Bf16>;
    if (s == "f32") return cvt<D, float>;
    if (s == "f64") return cvt<D, double>;
    throw Error("unknown source type '." + std::string(s) + "'");
}
Exec cvt_of(std::string_view d, std::string_view s) {
    if (d == "u8") return cvt_from<uint8_t>(s);
    if (d == "s8") return cvt_from<int8_t>(s);
    if (d == "u16") return cvt_from<uint16_t>(s);
    if (d == "s16") return cvt_from<int16_t>(s);
    if (d == "u32") return cvt_from<uint32_t>(s);
    if (d == "s32") return cvt_from<int32_t>(s);
    if (d == "u64") return cvt_from<uint64_t>(s);
    if (d == "s64") return cvt_from<int64_t>(s);
    if (d == "f16") return cvt_from<Half>(s);
    if (d == "bf16") return cvt_from<Bf16>(s);
    if (d == "f32") return cvt_from<float>(s);
    if (d == "f64") return cvt_from<double>(s);
    throw Error("unknown result type '." + std::string(d) + "'");
}

uint32_t bytes_of(std::string_view type) {
    return type.ends_with("64") ? 8 : type.ends_with("32") ? 4 : type.ends_with("16") ? 2 : 1;
}

/// d = {a in the high half, b in the low one}
template <class T> void pack(Warp& w, const Op& op, uint32_t mask) {
    const float *a = w.at<float>(op.r[1]), *b = w.at<float>(op.r[2]);
    Two<T> d[32];
    if (op.flags == 0) {
        for (int i = 0; i < 32; i++) d[i] = {nearest<T>(b[i]), nearest<T>(a[i])};
    } else {
        for (int i = 0; i < 32; i++)
            d[i] = {convert<T, float>(b[i], op.flags), convert<T, float>(a[i], op.flags)};
    }
    blend(w.at<Two<T>>(op.r[0]), d, mask);
}

/// 19 bits of a float: nearest, ties away from zero (rna) or to even (rn).
template <bool AWAY> uint32_t to_tf32(uint32_t u) {
    if ((u & 0x7f800000) == 0x7f800000) return u & 0x7fffff ? 0x7fffffff : u;
    return (u + (AWAY ? 0x1000 : 0xfff + (u >> 13 & 1))) & ~0x1fffu;
}

void decode_cvt(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    uint16_t flags = 0;
    std::string_view round = m.one_of({"rni", "rzi", "rmi", "rpi", "rn", "rz", "rm", "rp", "rna"});
    if (round.size() == 3 && round != "rna") flags |= WHOLE;
    if (round.size() > 1) flags |= round[1] == 'z' ? 1 : round[1] == 'm' ? 2 : round[1] == 'p' ? 3 : 0;
    if (m.take("ftz")) flags |= FLUSH;
    if (m.take("sat")) flags |= SATURATE;
    if (m.take("relu")) flags |= RELU;
    bool finite = m.take("satfinite");
    std::string_view to = m.first(), from = m.first();
    if (to == "tf32" && from == "f32" && !finite) {
        d.want_operands(i, 2, 2);
        int32_t out = d.destination(i.operands[0], 'w'), in = d.source(i.operands[1], 'w');
        Op& op = d.emit(round == "rna" ? of<[](uint32_t u) { return to_tf32<true>(u); }>().exec
                                       : of<[](uint32_t u) { return to_tf32<false>(u); }>().exec,
                        i);
        op.r[0] = out, op.r[1] = in;
        return;
    }
    if (finite || round == "rna")
        d.fail("'." + std::string(finite ? "satfinite" : "rna") + "' is not known here");
    if (to.ends_with("16x2")) {
        if (from != "f32") d.fail("pairs are made of f32 alone");
        d.want_operands(i, 3, 3);
        int32_t out = d.destination(i.operands[0], 'w');
        int32_t a = d.source(i.operands[1], 'f'), b = d.source(i.operands[2], 'f');
        Op& op = d.emit(to == "f16x2" ? pack<Half> : pack<Bf16>, i);
        op.r[0] = out, op.r[1] = a, op.r[2] = b, op.flags = flags;
        return;
    }
    d.want_operands(i, 2, 2);
    bool integers = to[0] != 'f' && to[0] != 'b' && from[0] != 'f' && from[0] != 'b';
    if (integers && (flags & ~SATURATE)) d.fail("rounding of an integer");
    Exec exec = cvt_of(to, from);
    uint32_t wide_d, wide_s;
    int32_t out = d.destination_any(i.operands[0], bytes_of(to), wide_d);
    int32_t in = d.source_any(i.operands[1], bytes_of(from), wide_s);
    if (wide_s < bytes_of(from) || wide_d < bytes_of(to)) d.fail("a register is too narrow");
    Op& op = d.emit(exec, i);
    op.r[0] = out, op.r[1] = in, op.flags = flags;
    op.value = int64_t(uint64_t(wide_s) << 32 | wide_d);
}

} // namespace

void add_convert(Table& t) { t.decode("cvt", decode_cvt); }

} // namespace vgpu
