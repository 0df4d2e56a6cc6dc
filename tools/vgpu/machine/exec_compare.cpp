// setp, set, selp, slct: comparisons and choices.
#include "tools/vgpu/machine/decoder.h"
#include "tools/vgpu/machine/numbers.h"

namespace vgpu {
namespace {

enum class Compare { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
enum class Join { none, conjunction, disjunction, exclusive };

template <class T> auto number(T x) { return x; }
inline float number(Half x) { return to_float(x); }
inline float number(Bf16 x) { return to_float(x); }

template <Compare C, class T> bool compare(T x, T y) {
    auto a = number(x), b = number(y);
    bool unordered = a != a || b != b;
    switch (C) {
    case Compare::eq: return a == b;
    case Compare::ne: return (a < b) | (a > b) | (!std::is_floating_point_v<decltype(a)> && a != b);
    case Compare::lt: return a < b;
    case Compare::le: return a <= b;
    case Compare::gt: return a > b;
    case Compare::ge: return a >= b;
    case Compare::equ: return (a == b) | unordered;
    case Compare::neu: return a != b;
    case Compare::ltu: return (a < b) | unordered;
    case Compare::leu: return (a <= b) | unordered;
    case Compare::gtu: return (a > b) | unordered;
    case Compare::geu: return (a >= b) | unordered;
    case Compare::num: return !unordered;
    case Compare::nan: return unordered;
    }
}

template <Join J> uint32_t joined(uint32_t v, uint32_t c) {
    if constexpr (J == Join::conjunction)
        return v & c;
    else if constexpr (J == Join::disjunction)
        return v | c;
    else if constexpr (J == Join::exclusive)
        return v ^ c;
    else
        return v;
}

template <class T, Compare C> uint32_t compared(const T* a, const T* b) {
    uint8_t bytes[32];
    for (int i = 0; i < 32; i++) bytes[i] = compare<C, T>(a[i], b[i]) ? 0xff : 0;
    return bits_of(bytes);
}

void store(Warp& w, int32_t offset, uint32_t v, uint32_t mask) {
    if (offset == NO_REGISTER) return;
    uint32_t& d = w.predicate(offset);
    d = (d & ~mask) | (v & mask);
}

/// p = (a ? b) join c, q = !(a ? b) join c.      r: p q a b c, flags 1: c negated
template <class T, Compare C, Join J> void setp(Warp& w, const Op& op, uint32_t mask) {
    uint32_t v = compared<T, C>(w.at<T>(op.r[2]), w.at<T>(op.r[3]));
    uint32_t c = J == Join::none ? 0 : w.predicate(op.r[4]) ^ (op.flags ? ~0u : 0u);
    store(w, op.r[0], joined<J>(v, c), mask);
    store(w, op.r[1], joined<J>(~v, c), mask);
}

/// For pairs: p of the low halves, q of the high ones.
template <class T, Compare C, Join J> void setp2(Warp& w, const Op& op, uint32_t mask) {
    const Two<T>*a = w.at<Two<T>>(op.r[2]), *b = w.at<Two<T>>(op.r[3]);
    uint32_t low = 0, high = 0;
    for (int i = 0; i < 32; i++) {
        low |= uint32_t(compare<C, T>(a[i].low, b[i].low)) << i;
        high |= uint32_t(compare<C, T>(a[i].high, b[i].high)) << i;
    }
    uint32_t c = J == Join::none ? 0 : w.predicate(op.r[4]) ^ (op.flags ? ~0u : 0u);
    store(w, op.r[0], joined<J>(low, c), mask);
    store(w, op.r[1], joined<J>(high, c), mask);
}

template <Compare C, Join J> Exec setp_of_type(std::string_view type, char& letter) {
    letter = 'w';
    if (type == "u32" || type == "b32") return setp<uint32_t, C, J>;
    if (type == "s32") return setp<int32_t, C, J>;
    if (type == "f16x2") return setp2<Half, C, J>;
    if (type == "bf16x2") return setp2<Bf16, C, J>;
    letter = 'f';
    if (type == "f32") return setp<float, C, J>;
    letter = 'h';
    if (type == "u16" || type == "b16") return setp<uint16_t, C, J>;
    if (type == "s16") return setp<int16_t, C, J>;
    if (type == "f16") return setp<Half, C, J>;
    if (type == "bf16") return setp<Bf16, C, J>;
    letter = 'x';
    if (type == "u64" || type == "b64") return setp<uint64_t, C, J>;
    if (type == "s64") return setp<int64_t, C, J>;
    letter = 'd';
    if (type == "f64") return setp<double, C, J>;
    throw Error("unknown type '." + std::string(type) + "'");
}

template <Compare C> Exec setp_joined(Join j, std::string_view type, char& letter) {
    switch (j) {
    case Join::none: return setp_of_type<C, Join::none>(type, letter);
    case Join::conjunction: return setp_of_type<C, Join::conjunction>(type, letter);
    case Join::disjunction: return setp_of_type<C, Join::disjunction>(type, letter);
    case Join::exclusive: return setp_of_type<C, Join::exclusive>(type, letter);
    }
    return nullptr;
}

Exec setp_named(std::string_view name, Join j, std::string_view type, char& letter) {
    if (name == "eq") return setp_joined<Compare::eq>(j, type, letter);
    if (name == "ne") return setp_joined<Compare::ne>(j, type, letter);
    if (name == "lt" || name == "lo") return setp_joined<Compare::lt>(j, type, letter);
    if (name == "le" || name == "ls") return setp_joined<Compare::le>(j, type, letter);
    if (name == "gt" || name == "hi") return setp_joined<Compare::gt>(j, type, letter);
    if (name == "ge" || name == "hs") return setp_joined<Compare::ge>(j, type, letter);
    if (name == "equ") return setp_joined<Compare::equ>(j, type, letter);
    if (name == "neu") return setp_joined<Compare::neu>(j, type, letter);
    if (name == "ltu") return setp_joined<Compare::ltu>(j, type, letter);
    if (name == "leu") return setp_joined<Compare::leu>(j, type, letter);
    if (name == "gtu") return setp_joined<Compare::gtu>(j, type, letter);
    if (name == "geu") return setp_joined<Compare::geu>(j, type, letter);
    if (name == "num") return setp_joined<Compare::num>(j, type, letter);
    if (name == "nan") return setp_joined<Compare::nan>(j, type, letter);
    throw Error("unknown comparison '." + std::string(name) + "'");
}

Join join_of(Modifiers& m) {
    std::string_view name = m.one_of({"and", "or", "xor"});
    return name == "and"   ? Join::conjunction
           : name == "or"  ? Join::disjunction
           : name == "xor" ? Join::exclusive
                           : Join::none;
}

/// setp.cmp[.join][.ftz].type p[|q], a, b[, [!]c].  Flushing changes a comparison only where denormals are
/// compared with each other or zero; .ftz flushes before.
void decode_setp(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    std::string_view name = m.first();
    Join join = join_of(m);
    bool ftz = m.take("ftz");
    std::string_view type = m.first();
    d.want_operands(i, join == Join::none ? 3 : 4, join == Join::none ? 3 : 4);
    if (ftz && type != "f32") d.fail("'.ftz' is known for f32 alone");
    char letter;
    Exec exec = setp_named(name, join, type, letter);
    int32_t p = d.destination(i.operands[0], 'p'), q = d.second_destination(i.operands[0]);
    int32_t a = d.source(i.operands[1], letter), b = d.source(i.operands[2], letter);
    if (ftz) {
        for (int32_t* r : {&a, &b}) {
            int32_t clean = d.scratch(4);
            Op& op = d.emit(of<[](float x) { return flushed(x); }>().exec, i);
            op.r[0] = clean, op.r[1] = *r;
            *r = clean;
        }
    }
    int32_t c = join == Join::none ? NO_REGISTER : d.source(i.operands[3], 'p');
    Op& op = d.emit(exec, i);
    op.r[0] = p, op.r[1] = q, op.r[2] = a, op.r[3] = b, op.r[4] = c;
    op.flags = join != Join::none && i.operands[3].negated;
}

/// set.cmp[.join].dtype.type d, a, b[, c]: all ones or 1.0 where it holds. By halves for pairs.
struct SetResult {
    uint32_t yes;
    char letter;
};
template <bool PAIR> void set_value(Warp& w, const Op& op, uint32_t mask) { // r: d p [q], value: what yes is
    uint32_t p = w.predicate(op.r[1]);
    uint32_t* d = w.at<uint32_t>(op.r[0]);
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        uint32_t low = p >> i & 1 ? uint32_t(op.value) : 0;
        if (PAIR)
            d[i] = (low & 0xffff) | (w.predicate(op.r[2]) >> i & 1 ? uint32_t(op.value) << 16 : 0);
        else
            d[i] = low;
    }
}
void set_short(Warp& w, const Op& op, uint32_t mask) {
    uint32_t p = w.predicate(op.r[1]);
    uint16_t* d = w.at<uint16_t>(op.r[0]);
    for (int i = 0; i < 32; i++) {
        if (mask >> i & 1) d[i] = p >> i & 1 ? uint16_t(op.value) : 0;
    }
}
void decode_set(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    std::string_view name = m.first();
    Join join = join_of(m);
    std::string_view result = m.first(), type = m.first();
    d.want_operands(i, join == Join::none ? 3 : 4, join == Join::none ? 3 : 4);
    char letter;
    Exec exec = setp_named(name, join, type, letter);
    bool pair = type == "f16x2" || type == "bf16x2";
    bool narrow = result == "f16" || result == "bf16" || result == "u16" || result == "s16";
    uint32_t yes = result == "u32" || result == "s32"       ? (pair ? 0xffff : ~0u)
                   : result == "u16" || result == "s16"     ? 0xffff
                   : result == "f32"                        ? 0x3f800000
                   : result == "f16" || result == "f16x2"   ? 0x3c00
                   : result == "bf16" || result == "bf16x2" ? 0x3f80
                                                            : 0;
    if (!yes) d.fail("unknown result type '." + std::string(result) + "'");
    int32_t p = d.scratch(0), q = pair ? d.scratch(0) : NO_REGISTER;
    Op& test = d.emit(exec, i);
    test.r[0] = p, test.r[1] = q;
    int32_t a = d.source(i.operands[1], letter), b = d.source(i.operands[2], letter);
    test.r[2] = a, test.r[3] = b;
    if (join != Join::none) test.r[4] = d.source(i.operands[3], 'p'), test.flags = i.operands[3].negated;
    int32_t out = d.destination(i.operands[0], narrow ? 'h' : 'w');
    Op& op = d.emit(pair ? set_value<true> : narrow ? set_short : set_value<false>, i);
    op.r[0] = out, op.r[1] = p, op.r[2] = q, op.value = yes;
}

} // namespace

void add_compare(Table& t) {
    t.decode("setp", decode_setp);
    t.decode("set", decode_set);
    t.add("selp.{b16,u16,s16,f16,bf16}", of<[](uint16_t a, uint16_t b, bool p) { return p ? a : b; }>());
    t.add("selp.{b32,u32,s32}", of<[](uint32_t a, uint32_t b, bool p) { return p ? a : b; }>());
    t.add("selp.f32", of<[](float a, float b, bool p) { return p ? a : b; }>());
    t.add("selp.{b64,u64,s64}", of<[](uint64_t a, uint64_t b, bool p) { return p ? a : b; }>());
    t.add("selp.f64", of<[](double a, double b, bool p) { return p ? a : b; }>());
    t.add("slct.{b32,u32,s32}.s32", of<[](uint32_t a, uint32_t b, int32_t c) { return c >= 0 ? a : b; }>());
    t.add("slct.f32.s32", of<[](float a, float b, int32_t c) { return c >= 0 ? a : b; }>());
    t.add("slct.{b64,u64,s64}.s32", of<[](uint64_t a, uint64_t b, int32_t c) { return c >= 0 ? a : b; }>());
}

} // namespace vgpu
