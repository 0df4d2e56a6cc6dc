#include "tools/vgpu/machine/scheduler.h"

#include <algorithm>
#include <bit>

namespace vgpu {
namespace {

constexpr int64_t LONG_TURN = 20000; // instructions of a warp before others get their turn, without a seed
constexpr uint32_t NO_LIMIT = ~0u;
constexpr uint64_t MOST_POLLS = 20000; // of a warp, with nothing happening in between

} // namespace

std::string hex(uint32_t v) {
    char text[16];
    std::snprintf(text, sizeof text, "0x%08x", v);
    return text;
}

Dim3 thread_of(const Warp& w, uint32_t lane) {
    const Dim3& d = w.block->launch->block;
    uint32_t t = w.id.number * 32 + lane;
    return {t % d.x, t / d.x % d.y, t / (d.x * d.y)};
}

void complain(Warp& w, const Op& op, Fault fault, uint32_t lane, const std::string& what) {
    const Site& site = w.block->code->sites[op.site];
    report({fault, site.kernel, site.source, site.ptx_line, w.block->id.block, thread_of(w, lane), what});
}

/// The group that runs next, or -1.
int BlockRunner::choose_group(Warp& w) {
    int found = -1, ready = 0;
    bool any = launch.seed || w.starved;
    for (int g = 0; g < w.group_count; g++) {
        if (w.groups[g].wait != Wait::ready) continue;
        ready++;
        bool better =
            any ? block.random() % uint32_t(ready) == 0 : found < 0 || w.groups[g].pc < w.groups[found].pc;
        if (found < 0 || better) found = g;
    }
    w.starved = false;
    return found;
}

void BlockRunner::run_warp(Warp& w, int64_t budget) {
    while (budget > 0 && !w.turn_over && !block.aborted) {
        int g = choose_group(w);
        if (g < 0) return;
        Group now = w.groups[g];
        w.groups[g] = w.groups[--w.group_count];
        run_group(w, now, budget);
    }
    w.starved = budget <= 0;
    w.turn_over = false;
}

/// Takes in the groups that are at the same place; returns the nearest place further on where one is.
uint32_t BlockRunner::absorb(Warp& w, Group& now) {
    uint32_t limit = NO_LIMIT;
    for (int g = 0; g < w.group_count;) {
        Group& other = w.groups[g];
        if (other.wait == Wait::barrier || other.pc < now.pc) {
            g++;
        } else if (other.pc == now.pc) {
            now.mask |= other.mask, now.forced |= other.forced;
            other = w.groups[--w.group_count];
        } else {
            limit = std::min(limit, other.pc);
            g++;
        }
    }
    return limit;
}

bool BlockRunner::wants_other(const Warp& w, const Group& now) {
    if (launch.seed) return block.random() % 4 == 0;
    for (int g = 0; g < w.group_count; g++) {
        if (w.groups[g].wait == Wait::ready && w.groups[g].pc < now.pc) return true;
    }
    return false;
}

void BlockRunner::run_group(Warp& w, Group now, int64_t& budget) {
    const Op* ops = code.ops.data();
    uint32_t limit = absorb(w, now);
    uint64_t thread_count = 0, count = 0;
    auto settle = [&] {
        w.thread_instructions += thread_count, w.warp_instructions += count;
        block.instructions += thread_count;
        budget -= int64_t(count);
        thread_count = count = 0;
    };
    for (;;) {
        const Op& op = ops[now.pc];
        uint32_t mask = now.mask;
        if (op.guard != NO_REGISTER) mask &= w.predicate(op.guard) ^ (op.guard_negated ? ~0u : 0u);
        thread_count += uint32_t(std::popcount(mask)), count++;
        if (block.observer && mask && !op.memory)
            block.observer->executed(w.id, code.sites[op.site], op.unit, mask);
        if (op.flow == Flow::next) [[likely]] {
            if (mask) op.exec(w, op, mask);
            if (++now.pc == limit) limit = absorb(w, now);
            continue;
        }
        bool advance = true; // to the next instruction
        switch (op.flow) {
        case Flow::branch:
            if (mask == now.mask) {
                now.pc = op.target, advance = false;
            } else if (mask) {
                now.mask &= ~mask;
                put_back(w, {op.target, mask});
            }
            break;
        case Flow::indexed:
            settle();
            indexed_branch(w, op, now, mask);
            if (!(now.mask &= ~mask)) return;
            break;
        case Flow::exit:
            settle();
            if (mask) exit_lanes(w, op, mask);
            if (!(now.mask &= ~mask)) return;
            break;
        case Flow::collective:
            if (mask && !gather(w, op, now, mask)) return settle();
            if (mask) op.exec(w, op, mask);
            now.forced = false;
            break;
        case Flow::barrier:
            settle();
            if (mask && arrive(w, op, now, mask)) return;
            break;
        case Flow::yield:
            if (mask) op.exec(w, op, mask);
            if (w.again) advance = w.again = false;
            break;
        case Flow::next: break;
        }
        if (advance) now.pc++;
        if (w.group_count) {
            limit = absorb(w, now);
            if (w.group_count && wants_other(w, now)) {
                settle();
                return put_back(w, now);
            }
        } else {
            limit = NO_LIMIT;
        }
        if (int64_t(count) >= budget || w.turn_over || block.aborted) {
            settle();
            return put_back(w, now);
        }
    }
}

/// Whether all lanes that a collective needs are here. If not, those that are here wait.
bool BlockRunner::gather(Warp& w, const Op& op, Group& now, uint32_t mask) {
    uint32_t need = w.lanes;
    if (op.r[5] != NO_REGISTER) {
        const uint32_t* members = w.at<uint32_t>(op.r[5]);
        uint32_t all = 0, own = 0;
        for (int i = 0; i < 32; i++) {
            all |= mask >> i & 1 ? members[i] : 0;
            own |= members[i] & (1u << i);
        }
        if (uint32_t odd = mask & ~own)
            complain(w, op, Fault::inactive_lane, lowest(odd),
                     "the lane is not in its own member mask " + hex(members[lowest(odd)]));
        need = all & w.live;
    }
    if (!(need & ~mask) || now.forced) return true;
    if (uint32_t rest = now.mask & ~mask) put_back(w, {now.pc + 1, rest});
    put_back(w, {now.pc, mask, Wait::collective});
    return false;
}

void BlockRunner::indexed_branch(Warp& w, const Op& op, const Group&, uint32_t mask) {
    const std::vector<uint32_t>& targets = code.branch_tables[op.target];
    const uint32_t* index = w.at<uint32_t>(op.r[1]);
    while (mask) {
        uint32_t first = lowest(mask), same = 0;
        for (uint32_t m = mask; m; m &= m - 1) same |= index[lowest(m)] == index[first] ? m & -m : 0;
        if (index[first] >= targets.size()) {
            complain(w, op, Fault::out_of_bounds, first, "index of a branch behind the end of its table");
            exit_lanes(w, op, same);
        } else {
            put_back(w, {targets[index[first]], same});
        }
        mask &= ~same;
    }
}

void BlockRunner::exit_lanes(Warp& w, const Op& op, uint32_t mask) {
    for (const PendingCopy& c : w.copies) {
        if (uint32_t left = c.mask & mask) {
            const Site& site = code.sites[c.op->site];
            report({Fault::copy_not_waited, site.kernel, site.source, site.ptx_line, block.id.block,
                    thread_of(w, lowest(left)), "the thread ends before it has waited for this copy"});
        }
    }
    for (PendingCopy& c : w.copies) c.mask &= ~mask;
    std::erase_if(w.copies, [](const PendingCopy& c) { return !c.mask; });
    if (!w.products.empty()) {
        const Site& site = code.sites[w.products[0].op->site];
        report({Fault::copy_not_waited, site.kernel, site.source, site.ptx_line, block.id.block,
                thread_of(w, lowest(mask)), "the warp ends before it has waited for this product"});
        w.products.clear();
    }
    w.live &= ~mask;
    block.progress++;
    for (int g = 0; g < w.group_count; g++) { // they may have waited for these lanes
        if (w.groups[g].wait == Wait::collective) w.groups[g].wait = Wait::ready;
    }
    (void)op;
}

/// Whether waits for mbarriers and clusters have gone on for long without anything that could end them.
bool BlockRunner::polls_in_vain(Warp& w) {
    if (!w.idle_polls) return false;
    w.idle_polls = 0;
    uint64_t progress = 0;
    for (Block* b : block.cluster) progress += b->progress;
    if (progress != last_progress) {
        last_progress = progress, vain_polls = 0;
        return false;
    }
    if (++vain_polls < MOST_POLLS * block.cluster.size() * block.warps.size()) return false;
    complain(w, code.ops[w.group_count ? w.groups[0].pc : 0], Fault::deadlock, lowest(w.live),
             "waits in vain: " + who_waits_where());
    block.aborted = true;
    return true;
}

bool BlockRunner::step() {
    if (block.aborted) return false;
    uint32_t count = uint32_t(block.warps.size()), live = 0;
    uint32_t first = launch.seed ? uint32_t(block.random() % count) : next_warp;
    for (uint32_t k = 0; k < count; k++) {
        Warp& w = block.warps[(first + k) % count];
        live |= w.live;
        bool ready = std::any_of(w.groups, w.groups + w.group_count,
                                 [](const Group& g) { return g.wait == Wait::ready; });
        if (!ready) continue;
        int64_t turn = LONG_TURN;
        if (launch.seed) turn = 1 + int64_t(block.random() % (1u << (block.random() % 12)));
        run_warp(w, turn);
        next_warp = (first + k + 1) % count;
        if (polls_in_vain(w)) return false;
        if (launch.limit && block.instructions > launch.limit) {
            complain(w, code.ops[w.group_count ? w.groups[0].pc : 0], Fault::deadlock, 0,
                     "the block still runs after " + std::to_string(block.instructions) + " instructions; " +
                         who_waits_where());
            block.aborted = true;
        }
        return true;
    }
    for (uint32_t k = 0; k < count && !live; k++) live |= block.warps[k].live;
    return live ? stuck() : false;
}

} // namespace vgpu
