// Integer arithmetic. Overflow wraps, so everything is computed unsigned; division by zero gives all ones.
#include <cstdlib>
#include <limits>

#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

using u16 = uint16_t;
using s16 = int16_t;
using u32 = uint32_t;
using s32 = int32_t;
using u64 = uint64_t;
using s64 = int64_t;
using u128 = unsigned __int128;
using s128 = __int128;

template <class T> T quotient(T a, T b) {
    if (b == 0) return T(-1);
    if constexpr (std::is_signed_v<T>) {
        if (b == T(-1)) return T(0 - std::make_unsigned_t<T>(a));
    }
    return T(a / b);
}
template <class T> T remainder(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
        if (b == T(-1)) return 0;
    }
    return T(a % b);
}

/// Those that are alike for all widths.
template <class U, class S> void add_width(Table& t, const std::string& bits) {
    const std::string any = ".{u" + bits + ",s" + bits + ",b" + bits + "}", u = ".u" + bits, s = ".s" + bits;
    t.add("add" + any, of<[](U a, U b) { return U(a + b); }>());
    t.add("sub" + any, of<[](U a, U b) { return U(a - b); }>());
    t.add("mul.lo" + any, of<[](U a, U b) { return U(U(a) * u64(b)); }>());
    t.add("mad.lo" + any, of<[](U a, U b, U c) { return U(U(a) * u64(b) + c); }>());
    t.add("neg" + any, of<[](U a) { return U(0 - a); }>());
    t.add("abs" + s, of<[](S a) { return S(a < 0 ? 0 - U(a) : U(a)); }>());
    t.add("min" + u, of<[](U a, U b) { return a < b ? a : b; }>());
    t.add("max" + u, of<[](U a, U b) { return (a > b) ? a : b; }>());
    t.add("min" + s, of<[](S a, S b) { return a < b ? a : b; }>());
    t.add("max" + s, of<[](S a, S b) { return (a > b) ? a : b; }>());
    t.add("div" + u, of<[](U a, U b) { return quotient(a, b); }>());
    t.add("div" + s, of<[](S a, S b) { return quotient(a, b); }>());
    t.add("rem" + u, of<[](U a, U b) { return remainder(a, b); }>());
    t.add("rem" + s, of<[](S a, S b) { return remainder(a, b); }>());
    t.add("sad" + u, of<[](U a, U b, U c) { return U(c + ((a > b) ? a - b : b - a)); }>());
    t.add("sad" + s, of<[](S a, S b, S c) { return S(U(c) + ((a > b) ? U(a) - U(b) : U(b) - U(a))); }>());
}

/// Products of twice the width: .wide, and .hi the upper half.
template <class U, class S, class U2, class S2> void add_wide(Table& t, const std::string& bits) {
    constexpr int N = sizeof(U) * 8;
    t.add("mul.hi.u" + bits, of<[](U a, U b) { return U(U2(a) * U2(b) >> N); }>());
    t.add("mul.hi.s" + bits, of<[](S a, S b) { return S(S2(S2(a) * S2(b)) >> N); }>());
    t.add("mad.hi.u" + bits, of<[](U a, U b, U c) { return U(U(U2(a) * U2(b) >> N) + c); }>());
    t.add("mad.hi.s" + bits, of<[](S a, S b, S c) { return S(U(S2(S2(a) * S2(b)) >> N) + U(c)); }>());
    if constexpr (sizeof(U) < 8) {
        t.add("mul.wide.u" + bits, of<[](U a, U b) { return U2(U2(a) * U2(b)); }>());
        t.add("mul.wide.s" + bits, of<[](S a, S b) { return S2(S2(a) * S2(b)); }>());
        t.add("mad.wide.u" + bits, of<[](U a, U b, U2 c) { return U2(U2(a) * U2(b) + c); }>());
        t.add("mad.wide.s" + bits, of<[](S a, S b, S2 c) { return S2(U2(S2(a) * S2(b)) + U2(c)); }>());
    }
}

s32 saturated(s64 v) { return s32(v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v); }

// Carries: the predicate at offset 0 of the file is the condition code of each lane.
// --------------------------

/// d = a + b (+ carry), or a - b (- borrow).
template <class U, bool SUBTRACT, bool IN, bool OUT> void carry(Warp& w, const Op& op, uint32_t mask) {
    U* d = w.at<U>(op.r[0]);
    const U *a = w.at<U>(op.r[1]), *b = w.at<U>(op.r[2]);
    uint32_t& flags = w.predicate(0);
    uint32_t in = IN ? flags : 0, out = 0;
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        u128 c = in >> i & 1;
        u128 v = SUBTRACT ? u128(a[i]) - b[i] - c : u128(a[i]) + b[i] + c;
        out |= u32(v >> (sizeof(U) * 8) & 1) << i;
        d[i] = U(v);
    }
    if (OUT) flags = (flags & ~mask) | out;
}
/// d = low or high half of a * b, + c + carry
template <class U, class U2, bool HIGH, bool IN, bool OUT>
void carry_product(Warp& w, const Op& op, uint32_t mask) {
    U* d = w.at<U>(op.r[0]);
    const U *a = w.at<U>(op.r[1]), *b = w.at<U>(op.r[2]), *c = w.at<U>(op.r[3]);
    uint32_t& flags = w.predicate(0);
    uint32_t in = IN ? flags : 0, out = 0;
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        U2 product = U2(a[i]) * b[i];
        u128 v = u128(U(HIGH ? product >> (sizeof(U) * 8) : product)) + c[i] + (in >> i & 1);
        out |= u32(v >> (sizeof(U) * 8) & 1) << i;
        d[i] = U(v);
    }
    if (OUT) flags = (flags & ~mask) | out;
}

template <class U, class U2> void add_carries(Table& t, const std::string& bits) {
    const char* two = sizeof(U) == 4 ? "www" : "xxx";
    const char* three = sizeof(U) == 4 ? "wwww" : "xxxx";
    const std::string any = ".{u" + bits + ",s" + bits + "}";
    t.add("add.cc" + any, {carry<U, false, false, true>, two});
    t.add("addc" + any, {carry<U, false, true, false>, two});
    t.add("addc.cc" + any, {carry<U, false, true, true>, two});
    t.add("sub.cc" + any, {carry<U, true, false, true>, two});
    t.add("subc" + any, {carry<U, true, true, false>, two});
    t.add("subc.cc" + any, {carry<U, true, true, true>, two});
    t.add("mad.lo.cc" + any, {carry_product<U, U2, false, false, true>, three});
    t.add("madc.lo" + any, {carry_product<U, U2, false, true, false>, three});
    t.add("madc.lo.cc" + any, {carry_product<U, U2, false, true, true>, three});
    t.add("mad.hi.cc.u" + bits, {carry_product<U, U2, true, false, true>, three});
    t.add("madc.hi.u" + bits, {carry_product<U, U2, true, true, false>, three});
    t.add("madc.hi.cc.u" + bits, {carry_product<U, U2, true, true, true>, three});
}

// Dot products of packed bytes
// --------------------------------------------------------------------------------

template <class A, class B, class C> C dot4(u32 a, u32 b, C c) {
    u32 sum = u32(c);
    for (int k = 0; k < 4; k++) sum += u32(s32(A(a >> (8 * k))) * s32(B(b >> (8 * k))));
    return C(sum);
}
template <class A16, class B, class C> C dot2(u32 a, u32 b, C c, int shift) {
    u32 sum = u32(c);
    for (int k = 0; k < 2; k++) sum += u32(s32(A16(a >> (16 * k))) * s32(B(b >> (8 * k + shift))));
    return C(sum);
}

/// Two 16-bit numbers in a word.
struct Pair {
    u16 low, high;
};
template <class T, bool MAX> Pair extreme(Pair a, Pair b) {
    auto one = [](u16 x, u16 y) { return (T(x) < T(y)) != MAX ? x : y; };
    return {one(a.low, b.low), one(a.high, b.high)};
}

} // namespace

void add_integer(Table& t) {
    add_width<u16, s16>(t, "16");
    add_width<u32, s32>(t, "32");
    add_width<u64, s64>(t, "64");
    add_wide<u16, s16, u32, s32>(t, "16");
    add_wide<u32, s32, u64, s64>(t, "32");
    add_wide<u64, s64, u128, s128>(t, "64");
    add_carries<u32, u64>(t, "32");
    add_carries<u64, u128>(t, "64");

    t.add("add.sat.s32", of<[](s32 a, s32 b) { return saturated(s64(a) + b); }>());
    t.add("sub.sat.s32", of<[](s32 a, s32 b) { return saturated(s64(a) - b); }>());
    t.add("mul24.lo.{u32,s32}", of<[](u32 a, u32 b) { return u32(u64(a & 0xffffff) * (b & 0xffffff)); }>());

    t.add("add.{u16x2,s16x2}", of<[](Pair a, Pair b) {
              return Pair{u16(a.low + b.low), u16(a.high + b.high)};
          }>());
    t.add("min.u16x2", of<extreme<u16, false>>());
    t.add("min.s16x2", of<extreme<s16, false>>());
    t.add("max.u16x2", of<extreme<u16, true>>());
    t.add("max.s16x2", of<extreme<s16, true>>());

    using s8 = int8_t;
    using u8 = uint8_t;
    t.add("dp4a.u32.u32", of<[](u32 a, u32 b, u32 c) { return dot4<u8, u8>(a, b, c); }>());
    t.add("dp4a.u32.s32", of<[](u32 a, u32 b, s32 c) { return dot4<u8, s8>(a, b, c); }>());
    t.add("dp4a.s32.u32", of<[](u32 a, u32 b, s32 c) { return dot4<s8, u8>(a, b, c); }>());
    t.add("dp4a.s32.s32", of<[](u32 a, u32 b, s32 c) { return dot4<s8, s8>(a, b, c); }>());
    t.add("dp2a.lo.u32.u32", of<[](u32 a, u32 b, u32 c) { return dot2<u16, u8>(a, b, c, 0); }>());
    t.add("dp2a.hi.u32.u32", of<[](u32 a, u32 b, u32 c) { return dot2<u16, u8>(a, b, c, 16); }>());
    t.add("dp2a.lo.s32.s32", of<[](u32 a, u32 b, s32 c) { return dot2<s16, s8>(a, b, c, 0); }>());
    t.add("dp2a.hi.s32.s32", of<[](u32 a, u32 b, s32 c) { return dot2<s16, s8>(a, b, c, 16); }>());
}

} // namespace vgpu
