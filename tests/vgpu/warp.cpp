// What the lanes of a warp and the warps of a block do together, under many schedules.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "tests/vgpu/ptx_kernel.h"

namespace vgpu {
namespace {

/// The lane number of each thread, and small functions of it.
std::vector<uint32_t> numbers(uint32_t (*f)(uint32_t) = [](uint32_t t) { return t; }) {
    std::vector<uint32_t> v(THREADS);
    for (uint32_t t = 0; t < THREADS; t++) v[t] = f(t);
    return v;
}
void expect_lanes(const std::vector<uint32_t>& got, uint32_t (*f)(uint32_t)) {
    for (uint32_t t = 0; t < THREADS; t++) EXPECT_EQ(got[t], f(t)) << "thread " << t;
}
/// Findings since the last call, by kind.
std::vector<Fault> faults() {
    std::vector<Fault> list;
    for (const Finding& f : findings()) list.push_back(f.fault);
    clear_findings();
    return list;
}
using Faults = std::vector<Fault>;

TEST(Warp, shuffles) {
    auto a = numbers([](uint32_t t) { return t * 3; });
    expect_lanes(results<uint32_t, uint32_t>("shfl.sync.bfly.b32 %d, %a, 5, 31, -1;", a),
                 [](uint32_t t) { return (t ^ 5) * 3; });
    expect_lanes(results<uint32_t, uint32_t>("shfl.sync.idx.b32 %d, %a, 7, 31, -1;", a),
                 [](uint32_t t) { return (t / 32 * 32 + 7) * 3; });
    expect_lanes(results<uint32_t, uint32_t>("shfl.sync.up.b32 %d, %a, 3, 0, -1;", a),
                 [](uint32_t t) { return (t % 32 < 3 ? t : t - 3) * 3; });
    expect_lanes(results<uint32_t, uint32_t>("shfl.sync.down.b32 %d, %a, 3, 31, -1;", a),
                 [](uint32_t t) { return (t % 32 + 3 > 31 ? t : t + 3) * 3; });
    // segments of 8 lanes: c = (32 - 8) << 8 | 7 for idx, bfly and down
    expect_lanes(results<uint32_t, uint32_t>("shfl.sync.idx.b32 %d, %a, 10, 6175, -1;", a),
                 [](uint32_t t) { return (t / 8 * 8 + 2) * 3; });
    expect_lanes(results<uint32_t, uint32_t>("{.reg .pred %p; .reg .b32 %x; shfl.sync.down.b32 %x|%p, %a, 6, "
                                             "6175, -1; selp.b32 %d, %x, 999, %p;}",
                                             a),
                 [](uint32_t t) { return t % 8 + 6 > 7 ? 999 : (t + 6) * 3; });
    EXPECT_EQ(faults(), Faults{});
}

TEST(Warp, votes_matches_reductions) {
    auto a = numbers([](uint32_t t) { return t % 5; });
    auto like = [&](const char* body, uint32_t (*f)(uint32_t)) {
        expect_lanes(results<uint32_t, uint32_t>(body, a), f);
    };
    like("{.reg .pred %p; setp.eq.u32 %p, %a, 2; vote.sync.ballot.b32 %d, %p, -1;}", [](uint32_t t) {
        uint32_t m = 0;
        for (uint32_t i = 0; i < 32; i++) m |= uint32_t((t / 32 * 32 + i) % 5 == 2) << i;
        return m;
    });
    like("{.reg .pred %p; setp.lt.u32 %p, %a, 9; vote.sync.all.pred %p, %p, -1; selp.b32 %d, 1, 0, %p;}",
         [](uint32_t) { return 1u; });
    like("{.reg .pred %p; setp.gt.u32 %p, %a, 9; vote.sync.any.pred %p, !%p, -1; selp.b32 %d, 1, 0, %p;}",
         [](uint32_t) { return 1u; });
    like("match.any.sync.b32 %d, %a, -1;", [](uint32_t t) {
        uint32_t m = 0;
        for (uint32_t i = 0; i < 32; i++) m |= uint32_t((t / 32 * 32 + i) % 5 == t % 5) << i;
        return m;
    });
    like("redux.sync.add.u32 %d, %a, -1;", [](uint32_t t) {
        uint32_t s = 0;
        for (uint32_t i = 0; i < 32; i++) s += (t / 32 * 32 + i) % 5;
        return s;
    });
    like("redux.sync.max.s32 %d, %a, -1;", [](uint32_t) { return 4u; });
    like("activemask.b32 %d;", [](uint32_t) { return ~0u; });
    like("{.reg .pred %p; elect.sync _|%p, -1; selp.b32 %d, 1, 0, %p;}",
         [](uint32_t t) { return uint32_t(t % 32 == 0); });
    like("mov.u32 %d, %lanemask_lt;", [](uint32_t t) { return (1u << t % 32) - 1; });
    EXPECT_EQ(faults(), Faults{});
}

TEST(Warp, shuffle_from_a_lane_that_is_not_there) {
    results<uint32_t, uint32_t>(
        R"({ .reg .pred %p; .reg .b32 %l; mov.u32 %l, %laneid; setp.lt.u32 %p, %l, 16; mov.u32 %d, 0;
        @%p shfl.sync.bfly.b32 %d, %a, 16, 31, 0xffff; })",
        numbers());
    EXPECT_EQ(faults(), Faults{Fault::inactive_lane});
    // half of the warp never comes
    results<uint32_t, uint32_t>(
        R"({ .reg .pred %p; .reg .b32 %l; mov.u32 %l, %laneid; setp.lt.u32 %p, %l, 16; mov.u32 %d, 0;
        @%p shfl.sync.bfly.b32 %d, %a, 1, 31, -1; bar.warp.sync -1; })",
        numbers());
    EXPECT_EQ(faults(), Faults{Fault::inactive_lane});
}

/// Loops of different lengths in each lane, meeting again at a shuffle; the reference is plain C++.
constexpr const char* DIVERGENT = R"(.visible .entry k(.param .u64 out) {
    .reg .b32 %t, %v, %i, %n, %x; .reg .pred %p, %q; .reg .b64 %o, %w;
    mov.u32 %t, %tid.x; mov.u32 %v, %t; rem.u32 %n, %t, 7; mov.u32 %i, 0;
LOOP: setp.ge.u32 %p, %i, %n; @%p bra DONE;
    mad.lo.u32 %v, %v, 3, 1; and.b32 %x, %v, 1; setp.eq.u32 %q, %x, 0; @%q bra EVEN; add.u32 %v, %v, 5; bra.uni NEXT;
EVEN: shr.u32 %v, %v, 1;
NEXT: add.u32 %i, %i, 1; bra.uni LOOP;
DONE: shfl.sync.bfly.b32 %x, %v, 1, 31, -1; add.u32 %v, %v, %x;
    ld.param.u64 %o, [out]; mul.wide.u32 %w, %t, 4; add.s64 %o, %o, %w; st.global.u32 [%o], %v; ret; })";

TEST(Warp, lanes_part_and_meet_under_any_schedule) {
    auto value = [](uint32_t t) {
        uint32_t v = t;
        for (uint32_t i = 0; i < t % 7; i++) v = v * 3 + 1, v = v % 2 ? v + 5 : v / 2;
        return v;
    };
    for (uint64_t seed = 0; seed < 20; seed++) {
        std::vector<uint32_t> out(THREADS);
        Kernel{.seed = seed}(module_text(DIVERGENT), Arguments().add(out.data()));
        for (uint32_t t = 0; t < THREADS; t++)
            ASSERT_EQ(out[t], value(t) + value(t ^ 1)) << "seed " << seed << " thread " << t;
    }
    EXPECT_EQ(faults(), Faults{});
}

TEST(Block, barriers_order_shared_memory_under_any_schedule) {
    const char* text = R"(.shared .align 4 .b8 tile[512];
.visible .entry k(.param .u64 out) { .reg .b32 %t, %a, %v, %s, %i; .reg .b64 %o, %w; .reg .pred %p;
    mov.u32 %t, %tid.x; mov.u32 %s, tile; shl.b32 %a, %t, 2; add.u32 %a, %a, %s; mov.u32 %v, %t; mov.u32 %i, 0;
LOOP: st.shared.u32 [%a], %v; bar.sync 0;
    add.u32 %v, %t, 37; and.b32 %v, %v, 127; shl.b32 %v, %v, 2; add.u32 %v, %v, %s; ld.shared.u32 %v, [%v]; bar.sync 0;
    add.u32 %i, %i, 1; setp.lt.u32 %p, %i, 5; @%p bra LOOP;
    ld.param.u64 %o, [out]; mul.wide.u32 %w, %t, 4; add.s64 %o, %o, %w; st.global.u32 [%o], %v; ret; })";
    for (uint64_t seed = 0; seed < 10; seed++) {
        std::vector<uint32_t> out(THREADS);
        Kernel{.seed = seed}(module_text(text), Arguments().add(out.data()));
        for (uint32_t t = 0; t < THREADS; t++) ASSERT_EQ(out[t], (t + 5 * 37) % 128);
    }
    EXPECT_EQ(faults(), Faults{});
}

/// Named barriers: warps 0 and 1 produce, warps 2 and 3 consume.
TEST(Block, named_barriers) {
    const char* text = R"(.shared .align 4 .b8 tile[256];
.visible .entry k(.param .u64 out) { .reg .b32 %t, %a, %v, %s; .reg .b64 %o, %w; .reg .pred %p;
    mov.u32 %t, %tid.x; mov.u32 %s, tile; and.b32 %a, %t, 63; shl.b32 %a, %a, 2; add.u32 %a, %a, %s; mov.u32 %v, 0;
    setp.ge.u32 %p, %t, 64; @%p bra CONSUME;
    mul.lo.u32 %v, %t, 11; st.shared.u32 [%a], %v; bar.arrive 3, 128; bra.uni END;
CONSUME: bar.sync 3, 128; ld.shared.u32 %v, [%a];
END: ld.param.u64 %o, [out]; mul.wide.u32 %w, %t, 4; add.s64 %o, %o, %w; st.global.u32 [%o], %v; ret; })";
    for (uint64_t seed = 0; seed < 10; seed++) {
        std::vector<uint32_t> out(THREADS);
        Kernel{.seed = seed}(module_text(text), Arguments().add(out.data()));
        for (uint32_t t = 0; t < THREADS; t++) ASSERT_EQ(out[t], t % 64 * 11);
    }
    EXPECT_EQ(faults(), Faults{});
}

TEST(Block, barrier_reductions) {
    auto a = numbers();
    auto counted = results<uint32_t, uint32_t>(
        "{.reg .pred %p; setp.lt.u32 %p, %a, 37; bar.red.popc.u32 %d, 0, %p;}", a);
    expect_lanes(counted, [](uint32_t) { return 37u; });
    auto all = results<uint32_t, uint32_t>(
        "{.reg .pred %p; setp.lt.u32 %p, %a, 127; bar.red.and.pred %p, 0, %p; selp.b32 %d, 1, 0, %p;}", a);
    expect_lanes(all, [](uint32_t) { return 0u; });
    auto any = results<uint32_t, uint32_t>(
        "{.reg .pred %p; setp.lt.u32 %p, %a, 127; bar.red.or.pred %p, 0, !%p; selp.b32 %d, 1, 0, %p;}", a);
    expect_lanes(any, [](uint32_t) { return 1u; });
}

void run_body(const std::string& body, uint64_t seed = 0) {
    Kernel{.seed = seed}(
        module_text(".visible .entry k() {.reg .b32 %t, %x; .reg .pred %p; mov.u32 %t, %tid.x;\n" + body +
                    "\nret; }"),
        {});
}

TEST(Block, wrong_barriers_are_found) {
    for (uint64_t seed : {0, 3}) {
        run_body("setp.lt.u32 %p, %t, 64; @%p bra A; bar.sync 0; bra.uni B;\nA: bar.sync 0;\nB:", seed);
        EXPECT_EQ(faults(), Faults{Fault::barrier_divergent});
        run_body("setp.lt.u32 %p, %t, 64; @%p ret; bar.sync 0;", seed);
        EXPECT_EQ(faults(), Faults{Fault::barrier_exited});
        run_body("setp.lt.u32 %p, %t, 64; @%p bra A; bar.sync 1; bra.uni B;\nA: bar.sync 2;\nB:", seed);
        EXPECT_EQ(faults(), Faults{Fault::deadlock});
        run_body("setp.eq.u32 %p, %t, 5; @%p trap;", seed);
        EXPECT_EQ(faults(), Faults{Fault::trap});
        run_body("mov.u32 %t, 20; bar.sync %t;", seed);
        EXPECT_EQ(faults(), Faults{Fault::launch_limit});
    }
}

TEST(Block, shared_memory_has_bounds) {
    run_body("st.shared.u32 [%t], %t;");
    EXPECT_EQ(faults(), Faults{Fault::out_of_bounds});
}

TEST(Atomics, all_operations) {
    struct Case {
        const char* op;
        uint32_t start, expected;
    };
    const Case cases[] = {{"add.u32", 5, 5 + 127 * 64},
                          {"min.u32", 50, 0},
                          {"max.s32", uint32_t(-4), 127},
                          {"or.b32", 0, 127},
                          {"and.b32", ~0u, 0},
                          {"xor.b32", 9, 9},
                          {"inc.u32", 7, 0},
                          {"add.f32", 0, 0},
                          {"exch.b32", 200, 0}};
    for (const Case& c : cases) {
        std::string op = c.op;
        if (op == "inc.u32" || op == "exch.b32" || op == "add.f32") continue; // below
        std::vector<uint32_t> word{c.start};
        std::string text = module_text(
            ".visible .entry k(.param .u64 p) {.reg .b32 %t, %x; .reg .b64 %a; mov.u32 %t, %tid.x; "
            "ld.param.u64 %a, [p]; red.global." +
            op + " [%a], %t; ret; }");
        Kernel{}(text, Arguments().add(word.data()));
        EXPECT_EQ(word[0], c.expected) << op;
    }
    auto one = [](const std::string& body, auto start) {
        std::vector<decltype(start)> word{start};
        Kernel{}(
            module_text(".visible .entry k(.param .u64 p) {.reg .b32 %t, %x; .reg .f32 %f; .reg .b64 %a, "
                        "%w; .reg .f64 %g; mov.u32 %t, %tid.x; "
                        "ld.param.u64 %a, [p]; cvt.u64.u32 %w, %t; " +
                        body + " ret; }"),
            Arguments().add(word.data()));
        return word[0];
    };
    EXPECT_EQ(one("mov.f32 %f, 0f3F000000; atom.global.add.f32 %f, [%a], %f;", 1.0f), 65.0f);
    EXPECT_EQ(one("mov.f64 %g, 0d3FE0000000000000; red.global.add.f64 [%a], %g;", 1.0), 65.0);
    EXPECT_EQ(one("mov.u32 %x, 99; atom.global.inc.u32 %x, [%a], %x;", 0u), 28u);
    EXPECT_EQ(one("mov.u32 %x, 0x3f803f80; red.global.add.noftz.bf16x2 [%a], %x;", 0u), 0x43004300u);
    EXPECT_EQ(one("atom.global.max.u64 %w, [%a], %w;", uint64_t(3)), 127u);
    // a sum by compare-and-swap
    EXPECT_EQ(one(R"({.reg .b32 %old, %new, %seen; .reg .pred %p; ld.global.u32 %old, [%a];
        RETRY: add.u32 %new, %old, %t; atom.global.cas.b32 %seen, [%a], %old, %new; setp.ne.u32 %p, %seen, %old; mov.u32 %old, %seen; @%p bra RETRY;})",
                  0u),
              127u * 64);
    // the values before are those of the lanes before
    auto before = results<uint32_t, uint32_t>("{.shared .align 4 .b8 s[16]; .reg .pred %p; setp.eq.u32 %p, "
                                              "%a, 0; @%p st.shared.u32 [s], 0; bar.sync 0; "
                                              "atom.shared.add.u32 %d, [s], 1;}",
                                              numbers());
    std::sort(before.begin(), before.end());
    expect_lanes(before, [](uint32_t t) { return t; });
}

TEST(Memory, generic_addresses_vectors_and_locals) {
    auto a = numbers([](uint32_t t) { return t * 7; });
    auto through_shared = results<uint32_t, uint32_t>(
        R"({.shared .align 4 .b8 s[512]; .reg .b64 %x; .reg .b32 %y; .reg .pred %p;
        mov.u64 %x, s; cvta.shared.u64 %x, %x; mad.lo.s64 %x, %thread, 4, %x; st.u32 [%x], %a; ld.u32 %d, [%x];
        isspacep.shared %p, %x; @!%p mov.u32 %d, 0; cvta.to.shared.u64 %x, %x; ld.shared.u32 %y, [%x]; add.u32 %d, %d, %y;})",
        a);
    expect_lanes(through_shared, [](uint32_t t) { return t * 14; });
    auto local =
        results<uint32_t, uint32_t>(R"({.local .align 16 .b8 depot[32]; .reg .b64 %x, %y; .reg .b32 %z<4>;
        mov.u64 %x, depot; cvta.local.u64 %y, %x; st.local.v2.u32 [%x+8], {%a, 5}; ld.v4.u32 {%z0, %z1, %z2, %z3}, [%y];
        add.u32 %d, %z2, %z3; st.local.u8 [%x], %a; ld.local.s8 %z0, [%x]; add.u32 %d, %d, %z0;})",
                                    a);
    expect_lanes(local, [](uint32_t t) { return t * 7 + 5 + uint32_t(int8_t(t * 7)); });
    auto hints = results<uint32_t, uint32_t>("ld.global.nc.L1::no_allocate.L2::128B.u32 %d, [%at];", a);
    expect_lanes(hints, [](uint32_t t) { return t * 7; });
}

TEST(Memory, calls_parameters_and_constants) {
    const char* text = R"(.const .align 4 .b8 table[8] = {1, 0, 0, 0, 2, 0, 0, 0};
.global .align 8 .u64 pointer = generic(other)+4;
.global .align 4 .u32 other[2] = {10, 20};
.func (.param .b32 result) twice_plus(.param .b32 x, .param .align 8 .b8 pair[16]) { .reg .b32 %r<4>; .reg .pred %p;
    ld.param.b32 %r0, [x]; ld.param.b32 %r1, [pair+8]; setp.gt.u32 %p, %r0, 100; @%p bra BIG;
    add.u32 %r2, %r0, %r0; add.u32 %r2, %r2, %r1; st.param.b32 [result], %r2; ret;
BIG: st.param.b32 [result], %r0; ret; }
.visible .entry k(.param .align 8 .b8 in[24], .param .u64 out) { .reg .b32 %t, %v, %z; .reg .b64 %o, %w, %p;
    mov.u32 %t, %tid.x; ld.param.u32 %v, [in+16];
    { .param .b32 a; st.param.b32 [a], %t; .param .align 8 .b8 b[16]; st.param.b32 [b+8], %v; .param .b32 r;
      call.uni (r), twice_plus, (a, b); ld.param.b32 %v, [r]; }
    ld.const.u32 %z, [table+4]; add.u32 %v, %v, %z; ld.global.u64 %p, [pointer]; ld.u32 %z, [%p]; add.u32 %v, %v, %z;
    ld.param.u64 %o, [out]; mul.wide.u32 %w, %t, 4; add.s64 %o, %o, %w; st.global.u32 [%o], %v; ret; })";
    struct In {
        uint64_t a, b, c;
    };
    std::vector<uint32_t> out(THREADS);
    Kernel{}(module_text(text), Arguments().add(In{1, 2, 1000}).add(out.data()));
    expect_lanes(out, [](uint32_t t) { return (t > 100 ? t : 2 * t + 1000) + 22; });
}

TEST(Memory, asynchronous_copies_land_at_the_wait) {
    auto a = numbers([](uint32_t t) { return t + 1; });
    std::string start = "{.shared .align 16 .b8 s[512]; .reg .b32 %x, %y; shl.b32 %x, %t, 2; mov.u32 %y, s; "
                        "add.u32 %x, %x, %y; "
                        "cp.async.ca.shared.global [%x], [%at], 4; cp.async.commit_group; ";
    expect_lanes(results<uint32_t, uint32_t>(start + "cp.async.wait_group 0; ld.shared.u32 %d, [%x];}", a),
                 [](uint32_t t) { return t + 1; });
    EXPECT_EQ(faults(), Faults{});
    expect_lanes(results<uint32_t, uint32_t>(
                     start + "cp.async.wait_group 1; ld.shared.u32 %d, [%x]; cp.async.wait_all; }", a),
                 [](uint32_t) { return ~0u; }); // poison
    results<uint32_t, uint32_t>(start + "ld.shared.u32 %d, [%x];}", a);
    EXPECT_EQ(faults(), Faults{Fault::copy_not_waited});
    expect_lanes(
        results<uint32_t, uint32_t>(
            "{.shared .align 16 .b8 s[512]; .reg .b32 %x, %y, %z; shl.b32 %x, %t, 2; mov.u32 %y, s; add.u32 "
            "%x, %x, %y; "
            "and.b32 %z, %t, 1; shl.b32 %z, %z, 2; "
            "cp.async.ca.shared.global [%x], [%at], 4, %z; cp.async.wait_all; ld.shared.u32 %d, [%x];}",
            a),
        [](uint32_t t) { return t % 2 ? t + 1 : 0; }); // the rest is zero
}

} // namespace
} // namespace vgpu
