// What the lanes of a warp do together: shuffles, votes, matches, reductions. The scheduler runs them once
// all lanes of the member mask (r[5]) have come.
#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

enum class Mode { up, down, butterfly, index };

/// r: d p a b c members.     PTX ISA, "shfl.sync"
template <Mode M> void shuffle(Warp& w, const Op& op, uint32_t mask) {
    uint32_t a[32], v[32], in_range = 0, missing = 0;
    std::memcpy(a, w.at<uint32_t>(op.r[2]), sizeof a);
    const uint32_t *b = w.at<uint32_t>(op.r[3]), *c = w.at<uint32_t>(op.r[4]);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t segment = c[i] >> 8 & 31, clamp = c[i] & 31, shift = b[i] & 31;
        uint32_t last = (i & segment) | (clamp & ~segment), first = i & segment;
        uint32_t from;
        bool good;
        if constexpr (M == Mode::up)
            from = i - shift, good = int32_t(from) >= int32_t(last);
        else if constexpr (M == Mode::down)
            from = i + shift, good = from <= last;
        else if constexpr (M == Mode::butterfly)
            from = i ^ shift, good = from <= last;
        else
            from = first | (shift & ~segment), good = from <= last;
        if (!good) from = i;
        v[i] = a[from & 31];
        in_range |= uint32_t(good) << i;
        missing |= uint32_t(!(mask >> (from & 31) & 1)) << i;
    }
    if (missing &= mask) {
        complain(w, op, Fault::inactive_lane, lowest(missing),
                 "shuffle reads a lane that does not take part (takes part: " + hex(mask) + ")");
    }
    blend(w.at<uint32_t>(op.r[0]), v, mask);
    if (op.r[1] != NO_REGISTER) {
        uint32_t& p = w.predicate(op.r[1]);
        p = (p & ~mask) | (in_range & mask);
    }
}

void decode_shfl(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("sync")) d.fail("only the .sync form exists on this device");
    std::string_view mode = m.one_of({"up", "down", "bfly", "idx"});
    if (mode.empty() || !m.take("b32")) d.fail("unknown mode or type");
    d.want_operands(i, 5, 5);
    int32_t r[6] = {d.destination(i.operands[0], 'w'), d.second_destination(i.operands[0]),
                    d.source(i.operands[1], 'w'),      d.source(i.operands[2], 'w'),
                    d.source(i.operands[3], 'w'),      d.source(i.operands[4], 'w')};
    Op& op = d.emit(mode == "up"     ? shuffle<Mode::up>
                    : mode == "down" ? shuffle<Mode::down>
                    : mode == "bfly" ? shuffle<Mode::butterfly>
                                     : shuffle<Mode::index>,
                    i, Flow::collective);
    std::copy(std::begin(r), std::end(r), op.r);
}

/// Calls f(lanes with the same member mask) for each mask among `mask`.
template <class F> void each_group(Warp& w, const Op& op, uint32_t mask, F f) {
    const uint32_t* members = w.at<uint32_t>(op.r[5]);
    for (uint32_t rest = mask; rest;) {
        uint32_t of = members[lowest(rest)], same = 0;
        for (uint32_t m = rest; m; m &= m - 1) same |= members[lowest(m)] == of ? m & -m : 0;
        rest &= ~same;
        f(same);
    }
}
template <class T> void give(Warp& w, int32_t to, uint32_t lanes, T v) {
    T* d = w.at<T>(to);
    for (uint32_t m = lanes; m; m &= m - 1) d[lowest(m)] = v;
}
void give_predicate(Warp& w, int32_t to, uint32_t lanes, bool v) {
    uint32_t& d = w.predicate(to);
    d = (d & ~lanes) | (v ? lanes : 0);
}

enum class Vote { all, any, uniform, ballot };
/// r: d p - - - members, flags 1: p negated
template <Vote V> void vote(Warp& w, const Op& op, uint32_t mask) {
    uint32_t p = w.predicate(op.r[1]) ^ (op.flags ? ~0u : 0u);
    each_group(w, op, mask, [&](uint32_t lanes) {
        uint32_t yes = p & lanes;
        if constexpr (V == Vote::ballot)
            give<uint32_t>(w, op.r[0], lanes, yes);
        else if constexpr (V == Vote::all)
            give_predicate(w, op.r[0], lanes, yes == lanes);
        else if constexpr (V == Vote::any)
            give_predicate(w, op.r[0], lanes, yes != 0);
        else
            give_predicate(w, op.r[0], lanes, yes == 0 || yes == lanes);
    });
}
void decode_vote(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("sync")) d.fail("only the .sync form exists on this device");
    std::string_view kind = m.one_of({"all", "any", "uni", "ballot"});
    if (kind.empty() || !m.take(kind == "ballot" ? "b32" : "pred")) d.fail("unknown vote");
    d.want_operands(i, 3, 3);
    int32_t out = d.destination(i.operands[0], kind == "ballot" ? 'w' : 'p');
    int32_t p = d.source(i.operands[1], 'p'), members = d.source(i.operands[2], 'w');
    Op& op = d.emit(kind == "all"   ? vote<Vote::all>
                    : kind == "any" ? vote<Vote::any>
                    : kind == "uni" ? vote<Vote::uniform>
                                    : vote<Vote::ballot>,
                    i, Flow::collective);
    op.r[0] = out, op.r[1] = p, op.r[5] = members, op.flags = i.operands[1].negated;
}

/// r: d p a - - members
template <class T, bool ALL> void match(Warp& w, const Op& op, uint32_t mask) {
    const T* a = w.at<T>(op.r[2]);
    T values[32];
    std::memcpy(values, a, sizeof values);
    each_group(w, op, mask, [&](uint32_t lanes) {
        for (uint32_t m = lanes; m; m &= m - 1) {
            uint32_t i = lowest(m), same = 0;
            for (uint32_t k = lanes; k; k &= k - 1) same |= values[lowest(k)] == values[i] ? k & -k : 0;
            bool all = same == lanes;
            w.at<uint32_t>(op.r[0])[i] = ALL ? (all ? lanes : 0) : same;
            if (op.r[1] != NO_REGISTER) give_predicate(w, op.r[1], m & -m, all);
        }
    });
}
void decode_match(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    bool all = m.take("all");
    if ((!all && !m.take("any")) || !m.take("sync")) d.fail("unknown match");
    bool wide = m.take("b64");
    if (!wide && !m.take("b32")) d.fail("unknown type");
    d.want_operands(i, 3, 3);
    int32_t out = d.destination(i.operands[0], 'w'), q = d.second_destination(i.operands[0]);
    int32_t a = d.source(i.operands[1], wide ? 'x' : 'w'), members = d.source(i.operands[2], 'w');
    Op& op = d.emit(wide ? (all ? match<uint64_t, true> : match<uint64_t, false>)
                         : (all ? match<uint32_t, true> : match<uint32_t, false>),
                    i, Flow::collective);
    op.r[0] = out, op.r[1] = q, op.r[2] = a, op.r[5] = members;
}

/// r: d a - - - members
template <auto F> void reduce(Warp& w, const Op& op, uint32_t mask) {
    uint32_t a[32];
    std::memcpy(a, w.at<uint32_t>(op.r[1]), sizeof a);
    each_group(w, op, mask, [&](uint32_t lanes) {
        uint32_t v = a[lowest(lanes)];
        for (uint32_t m = lanes & (lanes - 1); m; m &= m - 1) v = F(v, a[lowest(m)]);
        give(w, op.r[0], lanes, v);
    });
}
void decode_redux(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("sync")) d.fail("only the .sync form exists");
    std::string_view name = m.one_of({"add", "min", "max", "and", "or", "xor"});
    std::string_view type = m.one_of({"u32", "s32", "b32"});
    if (name.empty() || type.empty()) d.fail("unknown operation or type");
    bool sign = type == "s32";
    Exec exec = name == "add"   ? reduce<[](uint32_t a, uint32_t b) { return a + b; }>
                : name == "and" ? reduce<[](uint32_t a, uint32_t b) { return a & b; }>
                : name == "or"  ? reduce<[](uint32_t a, uint32_t b) { return a | b; }>
                : name == "xor" ? reduce<[](uint32_t a, uint32_t b) { return a ^ b; }>
                : name == "min"
                    ? (sign ? reduce<[](uint32_t a, uint32_t b) { return int32_t(a) < int32_t(b) ? a : b; }>
                            : reduce<[](uint32_t a, uint32_t b) { return a < b ? a : b; }>)
                    : (sign ? reduce<[](uint32_t a, uint32_t b) { return (int32_t(a) > int32_t(b)) ? a : b; }>
                            : reduce<[](uint32_t a, uint32_t b) { return (a > b) ? a : b; }>);
    d.want_operands(i, 3, 3);
    int32_t out = d.destination(i.operands[0], 'w'), a = d.source(i.operands[1], 'w'),
            members = d.source(i.operands[2], 'w');
    Op& op = d.emit(exec, i, Flow::collective);
    op.r[0] = out, op.r[1] = a, op.r[5] = members;
}

void activemask(Warp& w, const Op& op, uint32_t mask) { give(w, op.r[0], mask, mask); }
void decode_activemask(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("b32")) d.fail("unknown type");
    d.want_operands(i, 1, 1);
    int32_t out = d.destination(i.operands[0], 'w');
    d.emit(activemask, i).r[0] = out;
}

/// elect.sync d|p, members: the lowest lane gets p.
void elect(Warp& w, const Op& op, uint32_t mask) {
    each_group(w, op, mask, [&](uint32_t lanes) {
        if (op.r[0] != NO_REGISTER) give(w, op.r[0], lanes, lowest(lanes));
        give_predicate(w, op.r[1], lanes, false);
        give_predicate(w, op.r[1], lanes & -lanes, true);
    });
}
void decode_elect(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("sync")) d.fail("only the .sync form exists");
    d.want_operands(i, 2, 2);
    int32_t out = d.destination(i.operands[0], 'w'), p = d.second_destination(i.operands[0]);
    int32_t members = d.source(i.operands[1], 'w');
    if (p == NO_REGISTER) d.fail("expected d|p");
    Op& op = d.emit(elect, i, Flow::collective);
    op.r[0] = out, op.r[1] = p, op.r[5] = members;
}

/// bar.warp.sync: orders memory accesses of the lanes.
void warp_barrier(Warp& w, const Op& op, uint32_t mask) {
    if (!w.block->observer) return;
    each_group(w, op, mask, [&](uint32_t lanes) { w.block->observer->warp_sync(w.id, lanes); });
}
void decode_warp_barrier(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("sync")) d.fail("only bar.warp.sync exists");
    d.want_operands(i, 1, 1);
    int32_t members = d.source(i.operands[0], 'w');
    d.emit(warp_barrier, i, Flow::collective).r[5] = members;
}

} // namespace

void add_collective(Table& t) {
    t.decode("shfl", decode_shfl);
    t.decode("vote", decode_vote);
    t.decode("match", decode_match);
    t.decode("redux", decode_redux);
    t.decode("activemask", decode_activemask);
    t.decode("elect", decode_elect);
    t.decode("bar.warp", decode_warp_barrier);
}

} // namespace vgpu
