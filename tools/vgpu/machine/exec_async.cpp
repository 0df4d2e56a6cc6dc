// cp.async of single threads. The data is read when the copy is issued and written as late as the program
// allows: when the thread waits for it. In between the target holds poison.
#include <algorithm>

#include "tools/vgpu/machine/memory_modifiers.h"

namespace vgpu {

void land_copies(Warp& w, uint32_t mask, int64_t newest) {
    if (w.copies.empty()) return;
    for (PendingCopy& c : w.copies) {
        uint32_t lands = 0;
        for (uint32_t m = c.mask & mask; m; m &= m - 1) {
            uint32_t i = lowest(m);
            if (newest < 0 || int64_t(c.group[i]) < int64_t(w.committed[i]) - newest) lands |= 1u << i;
        }
        if (!lands) continue;
        std::byte* host[32];
        Memory shared{.space = Space::shared};
        uint32_t good = translate(w, *c.op, shared, Kind::copy_landing, c.bytes, lands, c.target, host);
        for (uint32_t m = good; m; m &= m - 1) std::memcpy(host[lowest(m)], c.data[lowest(m)], c.bytes);
        c.mask &= ~lands;
    }
    std::erase_if(w.copies, [](const PendingCopy& c) { return !c.mask; });
}

namespace {

/// r: target, source, size of the source (or none), predicate to ignore the source; value[0]: bytes.
void copy(Warp& w, const Op& op, uint32_t mask) {
    const Extra& e = *op.extra;
    uint32_t bytes = uint32_t(e.value[0]);
    uint64_t source[32], target[32];
    std::byte *from[32], *to[32];
    Memory shared{.space = Space::shared, .wide_address = e.value[1] != 0};
    shared.offset = e.value[2];
    addresses(w, shared, op.r[0], target);
    addresses(w, e.memory, op.r[1], source);

    w.copies.emplace_back();
    PendingCopy& c = w.copies.back();
    std::memset(c.data, 0, sizeof c.data);
    uint32_t have[32];
    for (uint32_t i = 0; i < 32; i++)
        have[i] = op.r[2] == NO_REGISTER ? bytes : std::min(bytes, w.at<uint32_t>(op.r[2])[i]);
    if (op.r[3] != NO_REGISTER) {
        uint32_t ignore = w.predicate(op.r[3]) ^ (op.flags ? ~0u : 0u);
        for (uint32_t i = 0; i < 32; i++) have[i] = ignore >> i & 1 ? 0 : have[i];
    }
    for (uint32_t rest = mask; rest;) { // lanes with equal sizes read together
        uint32_t size = have[lowest(rest)], same = 0;
        for (uint32_t m = rest; m; m &= m - 1) same |= have[lowest(m)] == size ? m & -m : 0;
        rest &= ~same;
        if (!size) continue;
        uint32_t good = translate(w, op, e.memory, Kind::copy_load, size, same, source, from);
        for (uint32_t m = good; m; m &= m - 1) std::memcpy(c.data[lowest(m)], from[lowest(m)], size);
    }
    uint32_t good = translate(w, op, shared, Kind::copy_issue, bytes, mask, target, to);
    for (uint32_t m = good; m; m &= m - 1) std::memset(to[lowest(m)], 0xff, bytes);
    c.op = &op, c.mask = good, c.bytes = bytes;
    std::memcpy(c.target, target, sizeof target);
    std::memcpy(c.group, w.committed, sizeof c.group);
    if (!good) w.copies.pop_back();
}

void commit(Warp& w, const Op&, uint32_t mask) {
    for (uint32_t m = mask; m; m &= m - 1) w.committed[lowest(m)]++;
}
void wait_group(Warp& w, const Op& op, uint32_t mask) { land_copies(w, mask, op.value); }
void wait_all(Warp& w, const Op&, uint32_t mask) { land_copies(w, mask, -1); }

void decode_copy(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (m.take("commit_group")) {
        d.emit(commit, i);
    } else if (m.take("wait_group")) {
        d.want_operands(i, 1, 1);
        d.emit(wait_group, i).value = d.literal(i.operands[0]);
    } else if (m.take("wait_all")) {
        d.emit(wait_all, i);
    } else {
        if (!m.take("ca") && !m.take("cg")) d.fail("expected .ca or .cg");
        if (!m.take("shared") && !m.take("shared::cta")) d.fail("the target has to be shared memory");
        if (!m.take("global")) d.fail("the source has to be global memory");
        m.take("L2::cache_hint");
        m.prefixed("L2::");
        d.want_operands(i, 3, 5);
        Memory target, source;
        int32_t to = d.address(i.operands[0], target), from = d.address(i.operands[1], source);
        int64_t bytes = d.literal(i.operands[2]);
        if (bytes != 4 && bytes != 8 && bytes != 16) d.fail("copies have 4, 8 or 16 bytes");
        int32_t size = NO_REGISTER, ignore = NO_REGISTER;
        bool negated = false;
        if (i.operands.size() > 3) {
            const ptx::Operand& o = i.operands[3];
            uint32_t width;
            int32_t offset = d.source_any(o, 4, width);
            if (width == 4)
                size = offset;
            else if (width == 0)
                ignore = offset, negated = o.negated;
            else if (width != 8)
                d.fail("the fourth operand is a size, a predicate or a cache policy");
        }
        Op& op = d.emit(copy, i);
        Extra& e = d.extra(op);
        e.memory = source;
        e.value[0] = bytes, e.value[1] = target.wide_address, e.value[2] = target.offset;
        op.r[0] = to, op.r[1] = from, op.r[2] = size, op.r[3] = ignore, op.flags = negated;
    }
}

} // namespace

void add_async(Table& t) { t.decode("cp.async", decode_copy); }

} // namespace vgpu
