#include "tools/vgpu/memory/order.h"

#include <algorithm>
#include <bit>
#include <set>

namespace vgpu {

Beacon* Beacons::find(uint64_t address) {
    std::lock_guard lock(mutex_);
    auto found = map_.find(address);
    return found == map_.end() ? nullptr : found->second.get();
}

Beacon* Beacons::make(uint64_t address) {
    std::lock_guard lock(mutex_);
    auto& slot = map_[address];
    if (!slot) slot = std::make_unique<Beacon>();
    return slot.get();
}

/// Adds to `to` what `from` knows; of the same beacon the longer prefix stays.
static void merge(std::vector<Acquired>& to, const std::vector<Acquired>& from) {
    for (const Acquired& a : from) {
        auto same = std::find_if(to.begin(), to.end(), [&](auto& b) { return b.beacon == a.beacon; });
        if (same == to.end())
            to.push_back(a);
        else
            same->count = std::max(same->count, a.count);
    }
}

void BlockOrder::begin(uint64_t block, uint32_t count, Segments* global, uint64_t launch) {
    number = block;
    warps.clear();
    warps.resize(count);
    for (uint32_t i = 0; i < count; i++) warps[i].number = i;
    barrier_.assign(count, 0);
    acquired_.clear();
    objects_.clear();
    fine_ = false;
    shared_.clear();
    shared_first_ = shared_ordered_ = shared_next_;
    if (launch_ != launch) batch_next_ = batch_end_ = 0; // the rest of a batch is older than the launch
    launch_ = launch;
    global_ = global;
    batch_first_ = batch_ordered_ = batch_next_;
}

Stamp BlockOrder::shared_stamp(WarpOrder& w) {
    if (!w.shared_segment) {
        if (shared_next_ >= MAX_SHARED_SEGMENTS) return 0;
        w.shared_segment = shared_next_++;
        shared_.push_back({number, w.number, w.clock});
    }
    return w.shared_segment << SHARED_SHIFT | w.number << 7;
}

Stamp BlockOrder::global_stamp(WarpOrder& w) {
    if (!w.global_segment) {
        if (batch_next_ == batch_end_) {
            uint32_t first = global_->take();
            if (!first) return 0;
            batch_first_ = batch_next_ = batch_ordered_ = first;
            batch_end_ = first + Segments::BATCH;
        }
        w.global_segment = batch_next_++;
        (*global_)[w.global_segment] = {number, w.number, w.clock};
    }
    return w.global_segment << GLOBAL_SHIFT;
}

// Questions ----------------------------------------------------------------------------------------------

bool BlockOrder::ordered_in_warp(const WarpOrder& me, uint32_t lane, Stamp s, uint32_t clock) const {
    if (clock <= std::max(me.together, barrier_[me.number])) return true;
    if (s & MANY_LANES) return me.lanes != nullptr; // which lanes they were is not known: do not accuse
    uint32_t other = lane_of(s);
    if (other == lane) return true;
    return me.lanes && (*me.lanes)[lane * 32 + other] >= clock;
}

bool BlockOrder::ordered_in_block(const WarpOrder& me, Stamp s, const Segment& segment) const {
    if (segment.clock <= barrier_[segment.warp]) return true;
    if (me.known.empty()) return false;
    const uint32_t* clocks = me.known.data() + segment.warp * 32;
    if (s & MANY_LANES) return *std::max_element(clocks, clocks + 32) >= segment.clock;
    return clocks[lane_of(s)] >= segment.clock;
}

static bool covers(const Release& r, Stamp s, const Segment& segment) {
    if (r.block != segment.block) return false;
    if (segment.clock <= r.clocks[segment.warp]) return true;
    bool lane = s & MANY_LANES || r.lanes >> lane_of(s) & 1;
    if (segment.warp == r.warp && lane && segment.clock <= r.clock) return true;
    return !r.known.empty() && r.known[segment.warp * 32 + lane_of(s)] >= segment.clock;
}

/// Depth first through releases and what their warps had acquired. Rare: a conflict with another block.
static bool visible(const std::vector<Acquired>& from, Stamp s, const Segment& segment,
                    std::set<std::pair<Beacon*, size_t>>& visited) {
    for (const Acquired& a : from) {
        if (!visited.emplace(a.beacon, a.count).second) continue;
        std::vector<std::shared_ptr<const Release>> releases;
        {
            std::lock_guard lock(a.beacon->mutex);
            releases.assign(a.beacon->releases.begin(), a.beacon->releases.begin() + a.count);
        }
        for (auto it = releases.rbegin(); it != releases.rend(); ++it)
            if (covers(**it, s, segment)) return true;
        for (auto it = releases.rbegin(); it != releases.rend(); ++it)
            for (const Acquired& next : (*it)->acquired)
                if (next.beacon != a.beacon && visible({next}, s, segment, visited)) return true;
    }
    return false;
}

bool BlockOrder::ordered_foreign(const WarpOrder& me, Stamp s, const Segment& segment) const {
    if (acquired_.empty() && me.acquired.empty()) return false;
    std::set<std::pair<Beacon*, size_t>> visited;
    return visible(me.acquired, s, segment, visited) || visible(acquired_, s, segment, visited);
}

bool BlockOrder::ordered(const WarpOrder& me, uint32_t lane, Stamp s, const Segment& segment) const {
    if (segment.block != number) return ordered_foreign(me, s, segment);
    if (s & MANY_WARPS) return segment.clock <= barrier_[segment.warp] || fine_;
    if (segment.warp == me.number) return ordered_in_warp(me, lane, s, segment.clock);
    return ordered_in_block(me, s, segment);
}

// Edges --------------------------------------------------------------------------------------------------

void BlockOrder::warp_sync(WarpOrder& w, uint32_t lanes) {
    if (lanes == ~0u) {
        w.together = w.clock;
        w.shared_together = shared_next_;
        w.lanes.reset();
    } else { // the lanes learn what any of them knew, and of each other
        if (!w.lanes) w.lanes = std::make_unique<std::array<uint32_t, 1024>>();
        std::array<uint32_t, 32> joined{};
        for (uint32_t m = lanes; m; m &= m - 1)
            for (int l = std::countr_zero(m), o = 0; o < 32; o++)
                joined[o] = std::max(joined[o], (*w.lanes)[l * 32 + o]);
        for (uint32_t m = lanes; m; m &= m - 1) joined[std::countr_zero(m)] = w.clock;
        for (uint32_t m = lanes; m; m &= m - 1)
            std::copy(joined.begin(), joined.end(), w.lanes->begin() + std::countr_zero(m) * 32);
    }
    w.tick();
}

void BlockOrder::full_barrier() {
    for (WarpOrder& w : warps) {
        barrier_[w.number] = w.clock;
        merge(acquired_, w.acquired);
        w.acquired.clear();
        w.known.clear();
        w.lanes.reset();
        w.tick();
    }
    fine_ = false;
    shared_ordered_ = shared_next_;
    batch_ordered_ = batch_next_;
}

/// The clock of each thread up to which this warp is ordered behind it.
std::vector<uint32_t> BlockOrder::view(const WarpOrder& w) const {
    std::vector<uint32_t> v(warps.size() * 32);
    for (size_t t = 0; t < v.size(); t++) v[t] = barrier_[t / 32];
    if (!w.known.empty())
        for (size_t t = 0; t < v.size(); t++) v[t] = std::max(v[t], w.known[t]);
    for (int l = 0; l < 32; l++) {
        uint32_t& own = v[w.number * 32 + l];
        own = std::max(own, w.together);
    }
    return v;
}

static void join(std::vector<uint32_t>& to, const std::vector<uint32_t>& from) {
    if (to.empty()) to.resize(from.size());
    for (size_t i = 0; i < to.size(); i++) to[i] = std::max(to[i], from[i]);
}

void BlockOrder::barrier(const std::vector<WarpOrder*>& who) {
    if (who.size() == warps.size()) return full_barrier();
    std::vector<uint32_t> joined;
    std::vector<Acquired> acquired;
    for (WarpOrder* w : who) {
        w->together = w->clock;
        w->shared_together = shared_next_;
        join(joined, view(*w));
        merge(acquired, w->acquired);
    }
    for (WarpOrder* w : who) {
        w->known = joined;
        w->acquired = acquired;
        w->lanes.reset();
        w->tick();
    }
    fine_ = true;
}

void BlockOrder::arrive(WarpOrder& w, uint32_t lanes, uint64_t object) {
    std::vector<uint32_t> v = view(w);
    for (uint32_t m = lanes; m; m &= m - 1) v[w.number * 32 + std::countr_zero(m)] = w.clock;
    join(objects_[object], v);
    w.tick();
}

void BlockOrder::acquire(WarpOrder& w, uint64_t object) {
    auto found = objects_.find(object);
    if (found == objects_.end()) return;
    join(w.known, found->second);
    fine_ = true;
    w.tick();
}

std::shared_ptr<Release> BlockOrder::snapshot(const WarpOrder& w, uint32_t lanes) const {
    auto r = std::make_shared<Release>();
    *r = {number, w.number, lanes, w.clock, barrier_, w.known, acquired_};
    r->clocks[w.number] = std::max(r->clocks[w.number], w.together);
    merge(r->acquired, w.acquired);
    return r;
}

void BlockOrder::fence(WarpOrder& w, uint32_t lanes, Beacons& beacons) {
    look(w, beacons);
    merge(w.acquired, w.pending);
    w.pending.clear();
    w.fenced = snapshot(w, lanes);
    w.fenced_lanes = lanes;
    if (lanes == ~0u) w.fence_clock = w.clock;
    beacons.used = true;
    w.tick();
}

void BlockOrder::release(WarpOrder& w, uint32_t lanes, uint64_t address, bool itself, Beacons& beacons) {
    std::shared_ptr<Release> r;
    if (itself) {
        r = snapshot(w, lanes);
        beacons.used = true;
    } else if (w.fenced) {
        r = std::make_shared<Release>(*w.fenced);
        // Others fenced, then met this warp at a barrier.
        for (const WarpOrder& other : warps)
            r->clocks[other.number] =
                std::max(r->clocks[other.number], std::min(barrier_[other.number], other.fence_clock));
        merge(r->acquired, w.acquired); // a chain of atomics goes on
        merge(r->acquired, acquired_);
    } else {
        return;
    }
    Beacon* beacon = beacons.make(address);
    std::lock_guard lock(beacon->mutex);
    beacon->releases.push_back(std::move(r));
}

void BlockOrder::look(WarpOrder& w, Beacons& beacons) {
    if (w.seen.empty()) return;
    if (beacons.used)
        for (auto [address, acquires] : w.seen) {
            Beacon* beacon = beacons.find(address);
            if (!beacon) continue;
            std::lock_guard lock(beacon->mutex);
            merge(acquires ? w.acquired : w.pending, {{beacon, beacon->releases.size()}});
        }
    w.seen.clear();
}

} // namespace vgpu
