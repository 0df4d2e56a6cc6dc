// Every arithmetic opcode against the host's own arithmetic.
#include <bit>
#include <cmath>

#include "tests/vgpu/ptx_kernel.h"

namespace vgpu {
namespace {

using u16 = uint16_t;
using s16 = int16_t;
using u32 = uint32_t;
using s32 = int32_t;
using u64 = uint64_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;

TEST(Opcodes, integers) {
    expect_like(
        "add.s32 %d, %a, %b;", +[](u32 a, u32 b) { return a + b; });
    expect_like(
        "sub.s16 %d, %a, %b;", +[](u16 a, u16 b) { return u16(a - b); });
    expect_like(
        "add.u64 %d, %a, 12345678901;", +[](u64 a) { return a + 12345678901; });
    expect_like(
        "mul.lo.s32 %d, %a, %b;", +[](u32 a, u32 b) { return a * b; });
    expect_like(
        "mul.lo.s16 %d, %a, %b;", +[](u16 a, u16 b) { return u16(u32(a) * b); });
    expect_like(
        "mul.hi.s32 %d, %a, %b;", +[](s32 a, s32 b) { return s32(s64(a) * b >> 32); });
    expect_like(
        "mul.hi.u32 %d, %a, %b;", +[](u32 a, u32 b) { return u32(u64(a) * b >> 32); });
    expect_like(
        "mul.hi.u64 %d, %a, %b;", +[](u64 a, u64 b) { return u64((unsigned __int128)a * b >> 64); });
    expect_like(
        "mul.hi.s64 %d, %a, %b;", +[](s64 a, s64 b) { return s64((__int128)a * b >> 64); });
    expect_like(
        "mul.wide.s32 %d, %a, %b;", +[](s32 a, s32 b) { return s64(a) * b; });
    expect_like(
        "mul.wide.u16 %d, %a, %b;", +[](u16 a, u16 b) { return u32(a) * b; });
    expect_like(
        "mad.wide.u32 %d, %a, %b, %c;", +[](u32 a, u32 b, u64 c) { return u64(a) * b + c; });
    expect_like(
        "mad.lo.s32 %d, %a, %b, %c;", +[](u32 a, u32 b, u32 c) { return a * b + c; });
    expect_like(
        "mad.hi.s32 %d, %a, %b, %c;",
        +[](s32 a, s32 b, s32 c) { return s32(u32(s64(a) * b >> 32) + u32(c)); });
    expect_like(
        "div.s32 %d, %a, %b;", +[](s32 a, s32 b) { return b == 0 ? -1 : s32(s64(a) / b); });
    expect_like(
        "rem.s32 %d, %a, %b;", +[](s32 a, s32 b) { return b == 0 ? a : s32(s64(a) % b); });
    expect_like(
        "div.u64 %d, %a, %b;", +[](u64 a, u64 b) { return b == 0 ? ~0ull : a / b; });
    expect_like(
        "rem.u16 %d, %a, %b;", +[](u16 a, u16 b) { return b == 0 ? a : u16(a % b); });
    expect_like(
        "abs.s32 %d, %a;", +[](s32 a) { return a < 0 ? s32(0u - u32(a)) : a; });
    expect_like(
        "neg.s64 %d, %a;", +[](u64 a) { return 0 - a; });
    expect_like(
        "min.s32 %d, %a, %b;", +[](s32 a, s32 b) { return a < b ? a : b; });
    expect_like(
        "max.u32 %d, %a, %b;", +[](u32 a, u32 b) { return a < b ? b : a; });
    expect_like(
        "max.s64 %d, %a, %b;", +[](s64 a, s64 b) { return a < b ? b : a; });
    expect_like(
        "sad.s32 %d, %a, %b, %c;", +[](s32 a, s32 b, u32 c) { return u32(c + u32(std::llabs(s64(a) - b))); });
    expect_like(
        "add.sat.s32 %d, %a, %b;",
        +[](s32 a, s32 b) { return s32(std::clamp<s64>(s64(a) + b, INT32_MIN, INT32_MAX)); });
    // 128-bit sum from halves: the carry
    expect_like(
        "{.reg .b64 %x; add.cc.u64 %x, %a, %b; addc.u64 %d, %c, %e;}",
        +[](u64 a, u64 b, u64 c, u64 e) { return c + e + (a + b < a); });
    expect_like(
        "{.reg .b32 %x; sub.cc.u32 %x, %a, %b; subc.u32 %d, %c, %e;}",
        +[](u32 a, u32 b, u32 c, u32 e) { return c - e - (a < b); });
    expect_like(
        "dp4a.s32.s32 %d, %a, %b, %c;", +[](u32 a, u32 b, u32 c) {
            for (int k = 0; k < 32; k += 8) c += u32(int8_t(a >> k) * int8_t(b >> k));
            return c;
        });
    expect_like(
        "dp2a.lo.s32.s32 %d, %a, %b, %c;", +[](u32 a, u32 b, u32 c) {
            return c + u32(s16(a) * int8_t(b)) + u32(s16(a >> 16) * int8_t(b >> 8));
        });
}

TEST(Opcodes, bits) {
    expect_like(
        "and.b32 %d, %a, %b;", +[](u32 a, u32 b) { return a & b; });
    expect_like(
        "xor.b64 %d, %a, %b;", +[](u64 a, u64 b) { return a ^ b; });
    expect_like(
        "not.b16 %d, %a;", +[](u16 a) { return u16(~a); });
    expect_like(
        "shl.b32 %d, %a, %b;", +[](u32 a, u32 n) { return n > 31 ? 0 : a << n; });
    expect_like(
        "shr.s32 %d, %a, %b;", +[](s32 a, u32 n) { return a >> (n > 31 ? 31 : n); });
    expect_like(
        "shr.u64 %d, %a, %b;", +[](u64 a, u32 n) { return n > 63 ? 0 : a >> n; });
    expect_like(
        "shr.s16 %d, %a, %b;", +[](s16 a, u32 n) { return s16(a >> (n > 15 ? 15 : n)); });
    expect_like(
        "popc.b64 %d, %a;", +[](u64 a) { return u32(std::popcount(a)); });
    expect_like(
        "clz.b32 %d, %a;", +[](u32 a) { return u32(std::countl_zero(a)); });
    expect_like(
        "clz.b64 %d, %a;", +[](u64 a) { return u32(std::countl_zero(a)); });
    expect_like(
        "brev.b32 %d, %a;", +[](u32 a) {
            u32 v = 0;
            for (int k = 0; k < 32; k++) v |= (a >> k & 1) << (31 - k);
            return v;
        });
    expect_like(
        "bfind.u32 %d, %a;", +[](u32 a) { return a ? 31u - u32(std::countl_zero(a)) : ~0u; });
    expect_like(
        "bfind.s32 %d, %a;", +[](s32 a) {
            u32 v = u32(a < 0 ? ~a : a);
            return v ? 31u - u32(std::countl_zero(v)) : ~0u;
        });
    expect_like(
        "bfe.u32 %d, %a, %b, %c;", +[](u32 a, u32 p, u32 n) {
            p &= 255, n &= 255;
            u32 v = 0;
            for (u32 k = 0; k < n && k < 32; k++) v |= (p + k < 32 ? a >> (p + k) & 1 : 0) << k;
            return v;
        });
    expect_like(
        "bfe.s32 %d, %a, %b, %c;", +[](u32 a, u32 p, u32 n) {
            p &= 255, n &= 255;
            u32 sign = n == 0 ? 0 : a >> std::min(p + n - 1, 31u) & 1, v = 0;
            for (u32 k = 0; k < 32; k++) v |= (k < n && p + k < 32 ? a >> (p + k) & 1 : sign) << k;
            return v;
        });
    expect_like(
        "bfe.s64 %d, %a, %b, %c;", +[](u64 a, u32 p, u32 n) {
            p &= 255, n &= 255;
            u64 sign = n == 0 ? 0 : a >> std::min(p + n - 1, 63u) & 1, v = 0;
            for (u32 k = 0; k < 64; k++) v |= (k < n && p + k < 64 ? a >> (p + k) & 1 : sign) << k;
            return v;
        });
    expect_like(
        "bfi.b32 %d, %a, %b, %c, %e;", +[](u32 a, u32 b, u32 p, u32 n) {
            p &= 255, n &= 255;
            for (u32 k = 0; k < n && p + k < 32; k++) b = (b & ~(1u << (p + k))) | (a >> k & 1) << (p + k);
            return b;
        });
    expect_like(
        "shf.l.wrap.b32 %d, %a, %b, %c;", +[](u32 a, u32 b, u32 n) {
            n &= 31;
            return n ? b << n | a >> (32 - n) : b;
        });
    expect_like(
        "shf.r.wrap.b32 %d, %a, %b, %c;", +[](u32 a, u32 b, u32 n) {
            n &= 31;
            return n ? a >> n | b << (32 - n) : a;
        });
    expect_like(
        "shf.r.clamp.b32 %d, %a, %b, %c;", +[](u32 a, u32 b, u32 n) {
            return n > 31 ? b : n ? a >> n | b << (32 - n) : a;
        });
    expect_like(
        "lop3.b32 %d, %a, %b, %c, 0xE8;", +[](u32 a, u32 b, u32 c) { return (a & b) | (b & c) | (a & c); });
    expect_like(
        "lop3.b32 %d, %a, %b, %c, 0xCA;", +[](u32 a, u32 b, u32 c) { return (a & b) | (~a & c); });
    expect_like(
        "prmt.b32 %d, %a, %b, 0x5410;", +[](u32 a, u32 b) { return (a & 0xffff) | b << 16; });
    expect_like(
        "prmt.b32 %d, %a, %b, 0xFB73;", +[](u32 a, u32 b) {
            return a >> 24 | b >> 24 << 8 | (a >> 31 ? 0xff0000u : 0) | (b >> 31 ? 0xff000000u : 0);
        });
    expect_like(
        "prmt.b32.f4e %d, %a, %b, %c;",
        +[](u32 a, u32 b, u32 c) { return u32((u64(b) << 32 | a) >> (8 * (c & 3))); });
    expect_like(
        "fns.b32 %d, %a, 0, 3;", +[](u32 a) {
            a &= a - 1, a &= a - 1;
            return a ? u32(std::countr_zero(a)) : ~0u;
        });
}

TEST(Opcodes, floats) {
    expect_like(
        "add.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a + b; });
    expect_like(
        "sub.rn.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a - b; });
    expect_like(
        "mul.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a * b; });
    expect_like(
        "fma.rn.f32 %d, %a, %b, %c;", +[](f32 a, f32 b, f32 c) { return std::fma(a, b, c); });
    expect_like(
        "mul.ftz.f32 %d, %a, %b;", +[](f32 a, f32 b) {
            auto z = [](f32 x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; };
            return z(z(a) * z(b));
        });
    expect_like(
        "add.sat.f32 %d, %a, %b;", +[](f32 a, f32 b) {
            f32 v = a + b;
            return std::isnan(v) ? 0.0f : std::clamp(v, 0.0f, 1.0f) + 0.0f;
        });
    expect_like(
        "div.rn.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a / b; });
    expect_like(
        "rcp.rn.f32 %d, %a;", +[](f32 a) { return 1 / a; });
    expect_like(
        "sqrt.rn.f32 %d, %a;", +[](f32 a) { return std::sqrt(a); });
    expect_like(
        "neg.f32 %d, %a;", +[](f32 a) { return -a; });
    expect_like(
        "abs.f32 %d, %a;", +[](f32 a) { return std::fabs(a); });
    expect_like(
        "copysign.f32 %d, %a, %b;", +[](f32 a, f32 b) { return std::copysign(b, a); });
    expect_like(
        "min.f32 %d, %a, %b;", +[](f32 a, f32 b) {
            return std::isnan(a)   ? b
                   : std::isnan(b) ? a
                   : a == b        ? (std::signbit(a) ? a : b)
                                   : std::min(a, b);
        });
    expect_like(
        "max.NaN.f32 %d, %a, %b;", +[](f32 a, f32 b) {
            return std::isnan(a) || std::isnan(b) ? NAN : a == b ? (std::signbit(a) ? b : a) : std::max(a, b);
        });
    expect_like(
        "add.f64 %d, %a, %b;", +[](f64 a, f64 b) { return a + b; });
    expect_like(
        "fma.rn.f64 %d, %a, %b, %c;", +[](f64 a, f64 b, f64 c) { return std::fma(a, b, c); });
    expect_like(
        "div.rn.f64 %d, %a, %b;", +[](f64 a, f64 b) { return a / b; });
    expect_like(
        "selp.f32 %d, %a, %b, %c;", +[](f32 a, f32 b, bool p) { return p ? a : b; });
    expect_like(
        "testp.subnormal.f32 %d, %a;", +[](f32 a) { return std::fpclassify(a) == FP_SUBNORMAL; });
    expect_like(
        "testp.finite.f32 %d, %a;", +[](f32 a) { return bool(std::isfinite(a)); });
}

/// Neighbours of an exact sum show whether a rounding is right: rz <= |exact|, rm <= exact <= rp.
TEST(Opcodes, directed_roundings) {
    expect_like(
        "{.reg .f32 %x, %y; add.rm.f32 %x, %a, %b; add.rp.f32 %y, %a, %b; setp.le.f32 %d, %x, %y;}",
        +[](f32 a, f32 b) { return !std::isnan(a + b); });
    auto directed = [](const char* body, auto exact, int direction) {
        auto a = interesting<f32>(11), b = interesting<f32>(12);
        auto d = results<f32, f32, f32>(body, a, b);
        for (uint32_t i = 0; i < THREADS; i++) {
            long double v = exact(a[i], b[i]);
            if (!(std::fabs(v) < 1e38L) || std::fabs(v) < 1e-30L) continue;
            bool right = direction < 0   ? d[i] <= v
                         : direction > 0 ? d[i] >= v
                                         : std::fabs((long double)d[i]) <= std::fabs(v);
            EXPECT_TRUE(right) << body << " of " << a[i] << " " << b[i];
            EXPECT_LE(std::fabs(d[i] - v), std::fabs(v) * 1.2e-7L) << body;
        }
    };
    auto sum = [](f32 a, f32 b) { return (long double)a + b; };
    auto product = [](f32 a, f32 b) { return (long double)a * b; };
    auto quotient = [](f32 a, f32 b) { return (long double)a / b; };
    directed("add.rz.f32 %d, %a, %b;", sum, 0);
    directed("add.rm.f32 %d, %a, %b;", sum, -1);
    directed("mul.rp.f32 %d, %a, %b;", product, 1);
    directed("mul.rz.f32 %d, %a, %b;", product, 0);
    directed("div.rm.f32 %d, %a, %b;", quotient, -1);
    directed("div.rp.f32 %d, %a, %b;", quotient, 1);
}

TEST(Opcodes, approximations) {
    auto close = [](const char* body, double (*f)(double), float low, float high, double relative,
                    double absolute = 0) {
        std::vector<f32> a(THREADS);
        for (uint32_t i = 0; i < THREADS; i++) a[i] = low + (high - low) * float(i) / (THREADS - 1);
        auto d = results<f32, f32>(body, a);
        for (uint32_t i = 0; i < THREADS; i++) {
            double v = f(a[i]);
            EXPECT_NEAR(d[i], v, std::fabs(v) * relative + absolute) << body << " of " << a[i];
        }
    };
    close(
        "ex2.approx.ftz.f32 %d, %a;", [](double x) { return std::exp2(x); }, -120, 120, 3e-7);
    close(
        "ex2.approx.f32 %d, %a;", [](double x) { return std::exp2(x); }, -148, -126, 0, 2e-45);
    close(
        "lg2.approx.f32 %d, %a;", [](double x) { return std::log2(x); }, 1e-3f, 1e4f, 1e-6, 1e-7);
    close(
        "sin.approx.f32 %d, %a;", [](double x) { return std::sin(x); }, -3.1f, 3.1f, 0, 1e-6);
    close(
        "cos.approx.f32 %d, %a;", [](double x) { return std::cos(x); }, -3.1f, 3.1f, 0, 1e-6);
    close(
        "tanh.approx.f32 %d, %a;", [](double x) { return std::tanh(x); }, -5, 5, 1e-3);
    close(
        "rsqrt.approx.f32 %d, %a;", [](double x) { return 1 / std::sqrt(x); }, 1e-3f, 1e6f, 3e-7);
    close(
        "rcp.approx.ftz.f32 %d, %a;", [](double x) { return 1 / x; }, 1e-3f, 1e6f, 3e-7);
}

TEST(Opcodes, comparisons) {
    expect_like(
        "setp.lt.s32 %d, %a, %b;", +[](s32 a, s32 b) { return a < b; });
    expect_like(
        "setp.hs.u32 %d, %a, %b;", +[](u32 a, u32 b) { return a >= b; });
    expect_like(
        "setp.gt.u64 %d, %a, %b;", +[](u64 a, u64 b) { return a > b; });
    expect_like(
        "setp.ne.s16 %d, %a, 1;", +[](s16 a) { return a != 1; });
    expect_like(
        "setp.eq.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a == b; });
    expect_like(
        "setp.ne.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a < b || a > b; });
    expect_like(
        "setp.neu.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a != b; });
    expect_like(
        "setp.leu.f32 %d, %a, %b;", +[](f32 a, f32 b) { return !(a > b); });
    expect_like(
        "setp.num.f32 %d, %a, %b;", +[](f32 a, f32 b) { return !std::isnan(a) && !std::isnan(b); });
    expect_like(
        "setp.nan.f64 %d, %a, %b;", +[](f64 a, f64 b) { return std::isnan(a) || std::isnan(b); });
    expect_like(
        "setp.lt.and.s32 %d, %a, %b, %c;", +[](s32 a, s32 b, bool c) { return a < b && c; });
    expect_like(
        "setp.ge.or.f32 %d, %a, %b, !%c;", +[](f32 a, f32 b, bool c) { return a >= b || !c; });
    expect_like(
        "{.reg .pred %q; setp.lt.xor.s32 %q|%d, %a, %b, %c;}",
        +[](s32 a, s32 b, bool c) { return !(a < b) != c; });
    expect_like(
        "{.reg .pred %q; not.pred %q, %a; and.pred %d, %q, %b;}", +[](bool a, bool b) { return !a && b; });
    expect_like(
        "set.gt.u32.f32 %d, %a, %b;", +[](f32 a, f32 b) { return a > b ? ~0u : 0u; });
    expect_like(
        "slct.b32.s32 %d, %a, %b, %c;", +[](u32 a, u32 b, s32 c) { return c >= 0 ? a : b; });
}

TEST(Opcodes, conversions_of_integers) {
    expect_like(
        "cvt.s64.s32 %d, %a;", +[](s32 a) { return s64(a); });
    expect_like(
        "cvt.u64.u32 %d, %a;", +[](u32 a) { return u64(a); });
    expect_like(
        "cvt.u16.u32 %d, %a;", +[](u32 a) { return u16(a); });
    expect_like(
        "cvt.s32.s8 %d, %a;", +[](u32 a) { return s32(int8_t(a)); });
    expect_like(
        "cvt.u32.u8 %d, %a;", +[](u32 a) { return u32(uint8_t(a)); });
    expect_like(
        "cvt.s8.s32 %d, %a;", +[](u32 a) { return s32(int8_t(a)); }); // into a wider register
    expect_like(
        "cvt.sat.s8.s32 %d, %a;", +[](s32 a) { return s32(std::clamp(a, -128, 127)); });
    expect_like(
        "cvt.sat.u8.s32 %d, %a;", +[](s32 a) { return u32(std::clamp(a, 0, 255)); });
    expect_like(
        "cvt.rn.f32.s32 %d, %a;", +[](s32 a) { return f32(a); });
    expect_like(
        "cvt.rn.f32.u64 %d, %a;", +[](u64 a) { return f32(a); });
    expect_like(
        "cvt.rn.f64.s64 %d, %a;", +[](s64 a) { return f64(a); });
    expect_like(
        "cvt.rz.f32.u32 %d, %a;", +[](u32 a) {
            f32 f = f32(a);
            return f64(f) > a ? std::nextafter(f, 0.0f) : f;
        });
    expect_like(
        "cvt.rzi.s32.f32 %d, %a;",
        +[](f32 a) { return std::isnan(a) ? 0 : s32(std::clamp(std::trunc(f64(a)), -0x1p31, 0x1p31 - 1)); });
    expect_like(
        "cvt.rni.s32.f32 %d, %a;", +[](f32 a) {
            return std::isnan(a) ? 0 : s32(std::clamp(std::nearbyint(f64(a)), -0x1p31, 0x1p31 - 1));
        });
    expect_like(
        "cvt.rmi.s32.f32 %d, %a;",
        +[](f32 a) { return std::isnan(a) ? 0 : s32(std::clamp(std::floor(f64(a)), -0x1p31, 0x1p31 - 1)); });
    expect_like(
        "cvt.rpi.u32.f32 %d, %a;",
        +[](f32 a) { return std::isnan(a) ? 0 : u32(std::clamp(std::ceil(f64(a)), 0.0, 0x1p32 - 1)); });
    expect_like(
        "cvt.rzi.s64.f64 %d, %a;", +[](f64 a) {
            return std::isnan(a) ? 0 : a >= 0x1p63 ? INT64_MAX : a < -0x1p63 ? INT64_MIN : s64(a);
        });
    expect_like(
        "cvt.rmi.f32.f32 %d, %a;", +[](f32 a) { return std::floor(a); });
    expect_like(
        "cvt.rzi.f32.f32 %d, %a;", +[](f32 a) { return std::trunc(a); });
    expect_like(
        "cvt.rni.f64.f64 %d, %a;", +[](f64 a) { return std::nearbyint(a); });
    expect_like(
        "cvt.sat.f32.f32 %d, %a;",
        +[](f32 a) { return std::isnan(a) ? 0 : std::clamp(a, 0.0f, 1.0f) + 0.0f; });
    expect_like(
        "cvt.rn.f32.f64 %d, %a;", +[](f64 a) { return f32(a); });
    expect_like(
        "cvt.f64.f32 %d, %a;", +[](f32 a) { return f64(a); });
}

// 16-bit floats: _Float16 of the compiler for f16; for bf16 the nearest of its neighbours, in 128 bits.
// ----------

f32 wide(u16 bf16) { return std::bit_cast<f32>(u32(bf16) << 16); }
u16 nearest_bf16(__float128 v) {
    if (v != v) return 0x7fff;
    u16 low = u16(std::bit_cast<u32>(f32(v)) >> 16); // within one of the answer
    u16 best = low;
    for (int k = -1; k <= 1; k++) {
        u16 other = u16(low + k);
        if ((other ^ low) & 0x8000 || (other & 0x7fff) > 0x7f80) continue;
        auto distance = [&](u16 x) { // infinity stands one step behind the largest number
            __float128 w = (x & 0x7fff) == 0x7f80 ? (x >> 15 ? -(__float128)0x1p128 : (__float128)0x1p128)
                                                  : (__float128)wide(x);
            return w > v ? w - v : v - w;
        };
        if (distance(other) < distance(best) || (distance(other) == distance(best) && !(other & 1)))
            best = other;
    }
    return best;
}
f32 half(u16 h) { return f32(std::bit_cast<_Float16>(h)); }
u16 nearest_half(f64 v) { return std::isnan(v) ? 0x7fff : std::bit_cast<u16>(_Float16(v)); }
u16 nearest_half(__float128 v) { return v != v ? 0x7fff : std::bit_cast<u16>(_Float16(v)); }
u16 quiet(u16 bits, u16 infinite) { return (bits & 0x7fff) > infinite ? 0x7fff : bits; } // one NaN

TEST(Opcodes, small_floats) {
    expect_like(
        "cvt.rn.f16.f32 %d, %a;", +[](f32 a) { return nearest_half(f64(a)); });
    expect_like(
        "cvt.f32.f16 %d, %a;", +[](u16 a) { return half(a); });
    expect_like(
        "cvt.rn.bf16.f32 %d, %a;", +[](f32 a) { return nearest_bf16(a); });
    expect_like(
        "cvt.f32.bf16 %d, %a;", +[](u16 a) { return wide(a); });
    expect_like(
        "cvt.rz.bf16.f32 %d, %a;",
        +[](f32 a) { return std::isnan(a) ? u16(0x7fff) : u16(std::bit_cast<u32>(a) >> 16); });
    expect_like(
        "cvt.rn.bf16x2.f32 %d, %a, %b;",
        +[](f32 a, f32 b) { return u32(nearest_bf16(a)) << 16 | nearest_bf16(b); });
    expect_like(
        "cvt.rn.f16x2.f32 %d, %a, %b;",
        +[](f32 a, f32 b) { return u32(nearest_half(f64(a))) << 16 | nearest_half(f64(b)); });
    expect_like(
        "cvt.rn.relu.bf16x2.f32 %d, %a, %b;", +[](f32 a, f32 b) {
            return u32(nearest_bf16(a > 0 || a != a ? a : 0)) << 16 | nearest_bf16(b > 0 || b != b ? b : 0);
        });
    expect_like(
        "cvt.rna.tf32.f32 %d, %a;", +[](f32 a) {
            u32 u = std::bit_cast<u32>(a);
            return std::isnan(a) ? 0x7fffffff : std::isinf(a) ? u : (u + 0x1000) & ~0x1fffu;
        });
    expect_like(
        "fma.rn.f16 %d, %a, %b, %c;",
        +[](u16 a, u16 b, u16 c) { return nearest_half((__float128)half(a) * half(b) + half(c)); });
    expect_like(
        "add.f16 %d, %a, %b;", +[](u16 a, u16 b) { return nearest_half(f64(half(a)) + half(b)); });
    expect_like(
        "mul.bf16 %d, %a, %b;", +[](u16 a, u16 b) { return nearest_bf16((__float128)wide(a) * wide(b)); });
    expect_like(
        "fma.rn.bf16x2 %d, %a, %b, %c;", +[](u32 a, u32 b, u32 c) {
            u16 low = nearest_bf16((__float128)wide(u16(a)) * wide(u16(b)) + wide(u16(c)));
            u16 high = nearest_bf16((__float128)wide(u16(a >> 16)) * wide(u16(b >> 16)) + wide(u16(c >> 16)));
            return u32(high) << 16 | low;
        });
    expect_like(
        "neg.bf16x2 %d, %a;", +[](u32 a) { return a ^ 0x80008000; });
    expect_like(
        "max.bf16x2 %d, %a, %b;", +[](u32 a, u32 b) {
            auto one = [](u16 x, u16 y) {
                f32 p = wide(x), q = wide(y);
                return std::isnan(p)   ? quiet(y, 0x7f80)
                       : std::isnan(q) ? x
                       : p == q        ? (x >> 15 ? y : x)
                       : p > q         ? x
                                       : y;
            };
            return u32(one(u16(a >> 16), u16(b >> 16))) << 16 | one(u16(a), u16(b));
        });
    expect_like(
        "setp.lt.bf16 %d, %a, %b;", +[](u16 a, u16 b) { return wide(a) < wide(b); });
}

TEST(Opcodes, moves) {
    expect_like(
        "mov.b64 %d, {%a, %b};", +[](u32 a, u32 b) { return u64(b) << 32 | a; });
    expect_like(
        "{.reg .b32 %x; mov.b64 {%x, %d}, %a;}", +[](u64 a) { return u32(a >> 32); });
    expect_like(
        "mov.b32 %d, {%a, %b};", +[](u16 a, u16 b) { return u32(b) << 16 | a; });
    expect_like(
        "{.reg .b16 %x; mov.b32 {%d, %x}, %a;}", +[](u32 a) { return u16(a); });
    expect_like(
        "mov.f32 %d, 0f3FC00000;", +[](u32) { return 1.5f; });
    expect_like(
        "mov.f64 %d, 0d3FF8000000000000;", +[](u32) { return 1.5; });
    expect_like(
        "{.reg .pred %p; setp.gt.s32 %p, %a, 5; mov.u32 %d, 1; @%p mov.u32 %d, 2; @!%p add.u32 %d, %d, 7;}",
        +[](s32 a) { return a > 5 ? 2u : 8u; });
}

TEST(Opcodes, unknown_ones_are_named) {
    auto message = [](const std::string& body) {
        try {
            load_module(module_text(".visible .entry k() {\n.reg .b32 %r<4>;\n" + body + "\nret;\n}\n"), 90,
                        "some.cu");
        } catch (const Error& e) {
            return std::string(e.what());
        }
        return std::string("no error");
    };
    std::string unknown = message("frobnicate.b32 %r1, %r2;");
    EXPECT_NE(unknown.find("some.cu: kernel k, PTX line 6"), std::string::npos) << unknown;
    EXPECT_NE(unknown.find("frobnicate.b32"), std::string::npos) << unknown;
    std::string modifier = message("cvt.rn.odd.s32.f32 %r1, %r2;");
    EXPECT_NE(modifier.find("odd"), std::string::npos) << modifier;
    EXPECT_NE(message("add.s32 %r1, %r2;").find("operands"), std::string::npos);
    EXPECT_NE(message("mov.u32 %r1, %nothing;").find("%nothing"), std::string::npos);
    EXPECT_NE(message("bra nowhere;").find("nowhere"), std::string::npos);
}

} // namespace
} // namespace vgpu
