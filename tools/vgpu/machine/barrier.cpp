// bar.sync and its kin, and what happens when nobody can go on.
#include <bit>

#include "tools/vgpu/machine/scheduler.h"

namespace vgpu {

/// True: the lanes wait (they are put back), and so do the others of `now` if there are none.
bool BlockRunner::arrive(Warp& w, const Op& op, const Group& now, uint32_t mask) {
    uint32_t lane = lowest(mask), id = w.at<uint32_t>(op.r[1])[lane];
    if (id >= 16) {
        complain(w, op, Fault::launch_limit, lane,
                 "barrier " + std::to_string(id) + " does not exist, a block has 16");
        block.aborted = true;
        return true;
    }
    Barrier& b = block.barriers[id];
    if (b.lanes.empty()) b.lanes.resize(block.warps.size());
    uint32_t count = op.r[2] == NO_REGISTER ? 0 : w.at<uint32_t>(op.r[2])[lane];
    if (!b.first) {
        b.first = &op, b.expected = count;
    } else if (b.expected != count || (!count && (op.flags & ALIGNED) && b.first != &op)) {
        if (!b.complained)
            complain(w, op, Fault::barrier_divergent, lane,
                     "barrier " + std::to_string(id) + " is waited for here and at " +
                         code.sites[b.first->site].source + " (ptx " +
                         std::to_string(code.sites[b.first->site].ptx_line) + ")");
        b.complained = true;
    }
    // a warp counts as 32 threads for a given number, also if the block ends within it
    b.arrived += count && mask == w.lanes ? 32 : uint32_t(std::popcount(mask));
    b.lanes[w.id.number] |= mask;
    if (op.r[3] != NO_REGISTER) {
        uint32_t p = w.predicate(op.r[3]) ^ (op.flags & NEGATED ? ~0u : 0u);
        b.votes += uint32_t(std::popcount(p & mask));
    }
    bool waits = !(op.flags & ARRIVE);
    if (waits) {
        put_back(w, {now.pc, mask, Wait::barrier, id});
        if (uint32_t rest = now.mask & ~mask) put_back(w, {now.pc + 1, rest});
    }
    if (b.arrived >= (count ? count : block.id.threads)) release(id);
    return waits;
}

void BlockRunner::release(uint32_t id) {
    Barrier& b = block.barriers[id];
    std::vector<WarpId*> took_part;
    for (Warp& w : block.warps) {
        if (b.lanes[w.id.number]) took_part.push_back(&w.id);
        for (int g = 0; g < w.group_count; g++) {
            Group& group = w.groups[g];
            if (group.wait != Wait::barrier || group.barrier != id) continue;
            const Op& op = code.ops[group.pc];
            if (op.flags & REDUCE_POPC) {
                uint32_t* d = w.at<uint32_t>(op.r[0]);
                for (uint32_t m = group.mask; m; m &= m - 1) d[lowest(m)] = b.votes;
            } else if (op.flags & (REDUCE_AND | REDUCE_OR)) {
                bool yes = op.flags & REDUCE_OR ? b.votes > 0 : b.votes == b.arrived;
                uint32_t& d = w.predicate(op.r[0]);
                d = (d & ~group.mask) | (yes ? group.mask : 0);
            }
            group.pc++, group.wait = Wait::ready;
        }
    }
    if (block.observer)
        block.observer->block_barrier(block.id, id, took_part.data(), uint32_t(took_part.size()));
    std::vector<uint32_t> lanes = std::move(b.lanes);
    b = {};
    lanes.assign(lanes.size(), 0);
    b.lanes = std::move(lanes);
    block.progress++;
}

std::string BlockRunner::who_waits_where() const {
    std::string text;
    for (const Warp& w : block.warps) {
        for (int g = 0; g < w.group_count; g++) {
            const Group& group = w.groups[g];
            const Site& site = code.sites[code.ops[group.pc].site];
            if (text.size() > 300) return text + " ...";
            text += (text.empty() ? "" : ", ") + ("warp " + std::to_string(w.id.number)) + " lanes " +
                    hex(group.mask) + (group.wait == Wait::ready ? " at " : " wait at ") + site.source +
                    " (ptx " + std::to_string(site.ptx_line) + ")";
        }
    }
    return text;
}

/// Nobody can go on. Says why and lets somebody go on, or ends the block. False: the block has ended.
bool BlockRunner::stuck() {
    if (stuck_collectives() || stuck_barriers()) return true;
    Warp* first = &block.warps[0];
    for (Warp& w : block.warps) {
        if (w.live) first = &w;
    }
    complain(*first, code.ops[first->groups[0].pc], Fault::deadlock, lowest(first->live),
             "nobody can go on: " + who_waits_where());
    block.aborted = true;
    return false;
}

bool BlockRunner::stuck_collectives() {
    bool found = false;
    for (Warp& w : block.warps) {
        for (int g = 0; g < w.group_count; g++) {
            Group& group = w.groups[g];
            if (group.wait != Wait::collective) continue;
            const Op& op = code.ops[group.pc];
            uint32_t need =
                op.r[5] == NO_REGISTER ? w.lanes : w.at<uint32_t>(op.r[5])[lowest(group.mask)] & w.live;
            complain(w, op, Fault::inactive_lane, lowest(group.mask),
                     "lanes " + hex(group.mask) + " are here, lanes " + hex(need & ~group.mask) +
                         " do not come" + (need & ~w.live ? " (ended: " + hex(need & ~w.live) + ")" : ""));
            group.forced = true, group.wait = Wait::ready, found = true;
        }
    }
    return found;
}

/// Barriers that wait for threads which have ended are let go; those that wait at different barriers are
/// hopeless.
bool BlockRunner::stuck_barriers() {
    uint32_t live = 0;
    for (const Warp& w : block.warps) live += uint32_t(std::popcount(w.live));
    for (uint32_t id = 0; id < 16; id++) {
        Barrier& b = block.barriers[id];
        if (!b.first || live == block.id.threads || b.arrived < (b.expected ? 0 : live)) continue;
        if (b.expected) continue;
        Warp* waits = &block.warps[0];
        for (Warp& w : block.warps) {
            if (b.lanes[w.id.number]) waits = &w;
        }
        complain(*waits, *b.first, Fault::barrier_exited, lowest(b.lanes[waits->id.number]),
                 std::to_string(b.arrived) + " threads wait, " + std::to_string(block.id.threads - live) +
                     " have left the kernel");
        release(id);
        return true;
    }
    return false;
}

} // namespace vgpu
