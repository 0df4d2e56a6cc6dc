// Asynchronous copies that are used too early, and races.
#include <algorithm>
#include <bit>
#include <cstring>

#include "tools/vgpu/memory/checked_block.h"
#include "tools/vgpu/memory/checker.h"

namespace vgpu {

// Asynchronous copies ------------------------------------------------------------------------------------

void Checker::check_pending(WarpId& w, const Access& a, uint32_t lanes) {
    CheckedBlock& block = checked(w);
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        for (uint64_t word = a.address[lane] / 4; word * 4 < a.address[lane] + a.bytes; word++) {
            if (!(block.pending[word / 64] >> word % 64 & 1)) continue;
            found(Fault::copy_not_waited, w, a, lane, [&] {
                return what_of(a) + " of shared memory at offset " + std::to_string(word * 4) +
                       " while an asynchronous copy to it is under way (issued at " +
                       block.pending_site->source + "): wait for the copy first";
            });
            break;
        }
    }
}

void Checker::issue(CheckedBlock& block, const Access& a, uint32_t lanes) {
    block.pending_site = a.site;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint64_t begin = a.address[std::countr_zero(m)];
        for (uint64_t word = begin / 4; word * 4 < begin + a.bytes; word++) {
            uint64_t bit = 1ull << word % 64;
            block.pending_words += !(block.pending[word / 64] & bit);
            block.pending[word / 64] |= bit;
        }
    }
}

void Checker::land(CheckedBlock& block, const Access& a, uint32_t lanes, Stamp stamp) {
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        uint64_t begin = a.address[lane];
        for (uint64_t word = begin / 4; word * 4 < begin + a.bytes; word++) {
            uint64_t bit = 1ull << word % 64;
            block.pending_words -= (block.pending[word / 64] & bit) != 0;
            block.pending[word / 64] &= ~bit;
            block.word[WRITE][word] = stamp | lane;
        }
    }
    block.order.shared_segment(stamp).store = a.site;
}

// Races --------------------------------------------------------------------------------------------------

/// Another lane of the same instruction that stores to the same place, or -1.
static int twin(const Access& a, uint32_t lanes, uint32_t lane, uint32_t other) {
    bool overlap = lanes >> other & 1 && a.address[other] < a.address[lane] + a.bytes &&
                   a.address[lane] < a.address[other] + a.bytes;
    return overlap && other != lane ? int(other) : -1;
}

void Checker::conflicts(WarpId& w, const Access& a, uint32_t lanes, const Actor& me, bool contiguous,
                        const Cells& cells) {
    const uint64_t origin = me.global ? memory_.begin() : 0;
    auto word_of = [&](uint64_t address) { return cells.at((address - origin) / 4); };
    uint32_t words = a.bytes / 4;
    if (contiguous && step_quietly(me, word_of(a.address[0]), 32 * words, words, 0)) return;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        for (uint64_t at = a.address[lane], end = at + a.bytes; at < end;) {
            uint32_t whole = at % 4 ? 0 : std::min<uint64_t>((end - at) / 4, 4);
            if (whole && step_quietly(me, word_of(at), whole, 4, lane)) {
                at += 4 * whole;
                continue;
            }
            uint32_t n = std::min<uint64_t>(4 - at % 4, end - at);
            Conflict c = step_bytes(me, word_of(at), at % 4, n, lane);
            if (c.stamp) report_race(w, a, lanes, me, lane, at, c);
            at += n;
        }
    }
}

void Checker::report_race(WarpId& w, const Access& a, uint32_t lanes, const Actor& me, uint32_t lane,
                          uint64_t at, Conflict c) {
    bool older = me.global && c.stamp < me.first;
    if (older && streams_) {
        found(Fault::race_streams, w, a, lane, [&] {
            return what_of(a) + " (" + memory_.describe(at, 1) + ") and " +
                   streams_->name(streams_->owner(c.stamp >> GLOBAL_SHIFT)) + ", which " +
                   (c.write ? "wrote" : "read") +
                   " it, are in different streams without an event between them";
        });
        return;
    }
    const Segment& other = me.segment(c.stamp);
    bool same_warp = other.block == me.block.number && other.warp == w.number;
    uint32_t other_lane = lane_of(c.stamp);
    if (same_warp && a.kind == Kind::store && twin(a, lanes, lane, other_lane) >= 0) {
        if (!a.value || !std::memcmp(a.value + lane * a.bytes, a.value + other_lane * a.bytes, a.bytes))
            return;
        found(me.global ? Fault::race_global : Fault::race_shared, w, a, lane, [&] {
            return what_of(a) + ": lanes " + std::to_string(other_lane) + " and " + std::to_string(lane) +
                   " of one instruction store different values to one address";
        });
        return;
    }
    found(me.global ? Fault::race_global : Fault::race_shared, w, a, lane, [&] {
        const Site* site = c.write ? other.store : other.load;
        std::string place = me.global ? memory_.describe(at, 1) : "offset " + std::to_string(at);
        std::string who =
            (other.block == me.block.number ? "" : "block " + std::to_string(other.block) + " ") +
            std::string("thread ") + std::to_string(other.warp * 32 + other_lane);
        return what_of(a) + " (" + place + ") is not ordered behind " + (c.write ? "a store" : "a load") +
               " by " + who + (c.stamp & (MANY_LANES | MANY_WARPS) ? " and others" : "") +
               (site && *site->source ? std::string(" near ") + site->source : "") +
               (same_warp   ? ": a __syncwarp is missing"
                : me.global ? ""
                            : ": a barrier is missing");
    });
}

} // namespace vgpu
