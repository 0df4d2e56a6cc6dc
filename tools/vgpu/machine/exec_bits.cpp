// Logic, shifts, bit fields and byte permutation; operations on predicates.
#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

template <class U, class S> void add_width(Table& t, const std::string& bits) {
    constexpr u32 N = sizeof(U) * 8;
    t.add("and.b" + bits, of<[](U a, U b) { return U(a & b); }>());
    t.add("or.b" + bits, of<[](U a, U b) { return U(a | b); }>());
    t.add("xor.b" + bits, of<[](U a, U b) { return U(a ^ b); }>());
    t.add("not.b" + bits, of<[](U a) { return U(~a); }>());
    t.add("cnot.b" + bits, of<[](U a) { return U(a == 0); }>());
    t.add("shl.b" + bits, of<[](U a, u32 n) { return U(n < N ? U(a << (n & (N - 1))) : 0); }>());
    t.add("shr.{u,b}" + bits, of<[](U a, u32 n) { return U(n < N ? U(a >> (n & (N - 1))) : 0); }>());
    t.add("shr.s" + bits, of<[](S a, u32 n) { return S(a >> (n < N ? n : N - 1)); }>());
}

template <class U> u32 leading_zeros(U a) {
    if (a == 0) return sizeof(U) * 8;
    return sizeof(U) == 8 ? u32(__builtin_clzll(a)) : u32(__builtin_clz(u32(a)));
}
u32 reversed(u32 a) {
    a = (a >> 1 & 0x55555555) | (a & 0x55555555) << 1;
    a = (a >> 2 & 0x33333333) | (a & 0x33333333) << 2;
    a = (a >> 4 & 0x0f0f0f0f) | (a & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(a);
}
/// Position of the highest bit that differs from the sign, -1 if there is none.
template <class U, bool SIGNED> u32 highest(U a) {
    if (SIGNED && (a >> (sizeof(U) * 8 - 1))) a = ~a;
    return a ? u32(sizeof(U) * 8 - 1 - leading_zeros(a)) : ~0u;
}
template <class U, bool SIGNED> u32 shift_to_highest(U a) {
    u32 n = highest<U, SIGNED>(a);
    return n == ~0u ? n : u32(sizeof(U) * 8 - 1 - n);
}

template <class U, bool SIGNED> U extract(U a, u32 position, u32 length) {
    constexpr u32 N = sizeof(U) * 8;
    position &= 255, length &= 255;
    U sign = 0; // fills what lies above the field
    if (SIGNED && length) {
        u32 top = position + length - 1 < N - 1 ? position + length - 1 : N - 1;
        sign = (a >> top & 1) ? U(-1) : U(0);
    }
    U field = position < N ? U(a >> position) : sign;
    if (SIGNED && position && position < N && (a >> (N - 1) & 1) && sign) field |= U(~(U(-1) >> position));
    if (length >= N) return field;
    U keep = (U(1) << length) - 1;
    return (field & keep) | (sign & ~keep);
}
template <class U> U insert(U a, U b, u32 position, u32 length) {
    constexpr u32 N = sizeof(U) * 8;
    position &= 255, length &= 255;
    if (position >= N) return b;
    U keep = length >= N ? U(-1) : (U(1) << length) - 1;
    return (b & ~(keep << position)) | (a & keep) << position;
}

template <bool WRAP> u32 funnel_amount(u32 n) { return WRAP ? n & 31 : n > 32 ? 32 : n; }
u64 joined(u32 low, u32 high) { return u64(high) << 32 | low; }

/// Any logic function of three: bit (a b c) of the table is its value.
u32 logic3(u32 a, u32 b, u32 c, u32 table) {
    u32 v = 0;
    for (int k = 0; k < 8; k++) {
        u32 pick = 0 - (table >> k & 1);
        v |= pick & (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    }
    return v;
}

u32 permuted(u32 a, u32 b, u32 selector) {
    u64 bytes = joined(a, b);
    u32 v = 0;
    for (int k = 0; k < 4; k++) {
        u32 s = selector >> (4 * k) & 15;
        u32 byte = u32(bytes >> (8 * (s & 7))) & 255;
        if (s & 8) byte = byte & 128 ? 255 : 0;
        v |= byte << (8 * k);
    }
    return v;
}
/// The selector of a mode of prmt for the low two bits of c.
u32 mode_selector(const char* rows, u32 c) {
    u32 v = 0;
    for (int k = 0; k < 4; k++) v |= u32(rows[4 * (c & 3) + 3 - u32(k)] - '0') << (4 * k);
    return v;
}

/// The n-th set bit from `base` upwards (n > 0) or downwards (n < 0).
u32 nth_set(u32 mask, u32 base, int32_t n) {
    if (n == 0) return base < 32 && (mask >> base & 1) ? base : ~0u;
    for (int32_t at = int32_t(base & 31), count = n < 0 ? -n : n; at >= 0 && at < 32; at += n < 0 ? -1 : 1) {
        if ((mask >> at & 1) && --count == 0) return u32(at);
    }
    return ~0u;
}

enum class Logic { AND, OR, XOR, NOT, MOVE };
template <Logic L> void predicates(Warp& w, const Op& op, uint32_t mask) {
    auto get = [&](int k) { return w.predicate(op.r[k]) ^ (op.flags >> k & 1 ? ~0u : 0u); };
    u32 v = get(1);
    if constexpr (L == Logic::NOT)
        v = ~v;
    else if constexpr (L == Logic::AND)
        v &= get(2);
    else if constexpr (L == Logic::OR)
        v |= get(2);
    else if constexpr (L == Logic::XOR)
        v ^= get(2);
    u32& d = w.predicate(op.r[0]);
    d = (d & ~mask) | (v & mask);
}

} // namespace

void add_bits(Table& t) {
    add_width<u16, int16_t>(t, "16");
    add_width<u32, int32_t>(t, "32");
    add_width<u64, int64_t>(t, "64");

    t.add("and.pred", {predicates<Logic::AND>, "ppp"});
    t.add("or.pred", {predicates<Logic::OR>, "ppp"});
    t.add("xor.pred", {predicates<Logic::XOR>, "ppp"});
    t.add("not.pred", {predicates<Logic::NOT>, "pp"});
    t.add("mov.pred", {predicates<Logic::MOVE>, "pp"});

    t.add("popc.b32", of<[](u32 a) { return u32(__builtin_popcount(a)); }>());
    t.add("popc.b64", of<[](u64 a) { return u32(__builtin_popcountll(a)); }>());
    t.add("clz.b32", of<[](u32 a) { return leading_zeros(a); }>());
    t.add("clz.b64", of<[](u64 a) { return leading_zeros(a); }>());
    t.add("brev.b32", of<[](u32 a) { return reversed(a); }>());
    t.add("brev.b64", of<[](u64 a) { return joined(reversed(u32(a >> 32)), reversed(u32(a))); }>());
    t.add("bfind.u32", of<[](u32 a) { return highest<u32, false>(a); }>());
    t.add("bfind.s32", of<[](u32 a) { return highest<u32, true>(a); }>());
    t.add("bfind.u64", of<[](u64 a) { return highest<u64, false>(a); }>());
    t.add("bfind.s64", of<[](u64 a) { return highest<u64, true>(a); }>());
    t.add("bfind.shiftamt.u32", of<[](u32 a) { return shift_to_highest<u32, false>(a); }>());
    t.add("bfind.shiftamt.s32", of<[](u32 a) { return shift_to_highest<u32, true>(a); }>());
    t.add("bfind.shiftamt.u64", of<[](u64 a) { return shift_to_highest<u64, false>(a); }>());
    t.add("bfind.shiftamt.s64", of<[](u64 a) { return shift_to_highest<u64, true>(a); }>());
    t.add("fns.b32", of<[](u32 mask, u32 base, int32_t n) { return nth_set(mask, base, n); }>());
    t.add("bfe.u32", of<[](u32 a, u32 p, u32 n) { return extract<u32, false>(a, p, n); }>());
    t.add("bfe.s32", of<[](u32 a, u32 p, u32 n) { return extract<u32, true>(a, p, n); }>());
    t.add("bfe.u64", of<[](u64 a, u32 p, u32 n) { return extract<u64, false>(a, p, n); }>());
    t.add("bfe.s64", of<[](u64 a, u32 p, u32 n) { return extract<u64, true>(a, p, n); }>());
    t.add("bfi.b32", of<[](u32 a, u32 b, u32 p, u32 n) { return insert(a, b, p, n); }>());
    t.add("bfi.b64", of<[](u64 a, u64 b, u32 p, u32 n) { return insert(a, b, p, n); }>());
    t.add("bmsk.clamp.b32",
          of<[](u32 a, u32 n) { return u32((a > 31) ? 0 : ((1ull << ((n > 32) ? 32 : n)) - 1) << a); }>());
    t.add("bmsk.wrap.b32", of<[](u32 a, u32 n) { return u32(((1ull << (n & 31)) - 1) << (a & 31)); }>());

    t.add("shf.l.wrap.b32",
          of<[](u32 a, u32 b, u32 n) { return u32(joined(a, b) << funnel_amount<true>(n) >> 32); }>());
    t.add("shf.l.clamp.b32",
          of<[](u32 a, u32 b, u32 n) { return u32(joined(a, b) << funnel_amount<false>(n) >> 32); }>());
    t.add("shf.r.wrap.b32",
          of<[](u32 a, u32 b, u32 n) { return u32(joined(a, b) >> funnel_amount<true>(n)); }>());
    t.add("shf.r.clamp.b32",
          of<[](u32 a, u32 b, u32 n) { return u32(joined(a, b) >> funnel_amount<false>(n)); }>());
    t.add("lop3.b32", of<[](u32 a, u32 b, u32 c, u32 table) { return logic3(a, b, c, table); }>());

    t.add("prmt.b32", of<[](u32 a, u32 b, u32 c) { return permuted(a, b, c); }>());
    t.add("prmt.b32.f4e",
          of<[](u32 a, u32 b, u32 c) { return permuted(a, b, mode_selector("3210432154326543", c)); }>());
    t.add("prmt.b32.b4e",
          of<[](u32 a, u32 b, u32 c) { return permuted(a, b, mode_selector("5670670170121230", c)); }>());
    t.add("prmt.b32.rc8",
          of<[](u32 a, u32 b, u32 c) { return permuted(a, b, mode_selector("0000111122223333", c)); }>());
    t.add("prmt.b32.ecl",
          of<[](u32 a, u32 b, u32 c) { return permuted(a, b, mode_selector("3210321132223333", c)); }>());
    t.add("prmt.b32.ecr",
          of<[](u32 a, u32 b, u32 c) { return permuted(a, b, mode_selector("0000111022103210", c)); }>());
    t.add("prmt.b32.rc16",
          of<[](u32 a, u32 b, u32 c) { return permuted(a, b, mode_selector("1010323210103232", c)); }>());
}

} // namespace vgpu
