// Who happens before whom in a launch: vector clocks, kept small by what kernels usually do.
//
// A warp has one clock that grows at each synchronisation. An access of lane l of warp V at clock c happened
// before what warp W does now if
//   V = W    the same lane did it, or c <= together (a full warp_sync), or a partial one ordered the two
//   lanes V != W   c <= barrier[V] (the last barrier of the whole block), or c <= known[V, l] (named barriers
//   and
//            mbarriers of W)
//   another block: W acquired what V released: fence + atomic on one side, atomic or load + fence on the
//   other
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tools/vgpu/memory/segments.h"

namespace vgpu {

struct Beacon;
/// The first `count` releases at a beacon.
struct Acquired {
    Beacon* beacon;
    size_t count;
};

/// What one release makes visible: everything its warp knew.
struct Release {
    uint64_t block;
    uint32_t warp, lanes, clock;  // of the releasing lanes
    std::vector<uint32_t> clocks; // of each warp of the block
    std::vector<uint32_t> known;  // of each thread of the block; may be empty
    std::vector<Acquired> acquired;
};

/// An address in global memory through which blocks synchronise.
struct Beacon {
    std::mutex mutex;
    std::vector<std::shared_ptr<const Release>> releases;
};

/// All beacons of a launch.
class Beacons {
public:
    Beacon* find(uint64_t address);
    Beacon* make(uint64_t address);
    /// Some warp has released something: only then do atomics need a look.
    std::atomic<bool> used = false;

private:
    std::mutex mutex_;
    std::unordered_map<uint64_t, std::unique_ptr<Beacon>> map_;
};

struct WarpOrder {
    uint32_t number = 0;
    uint32_t clock = 1, together = 0;
    uint32_t shared_segment = 0, global_segment = 0; // of the present clock; 0: not taken yet
    uint32_t shared_together = 0; // segments of this warp below: all lanes are ordered with each other
    std::vector<uint32_t> known;  // see above; may be empty
    std::unique_ptr<std::array<uint32_t, 1024>>
        lanes;                             // [lane * 32 + other lane]: clock known by a partial sync
    uint32_t fence_clock = 0;              // all lanes fenced up to here
    std::shared_ptr<const Release> fenced; // what the last fence covers
    uint32_t fenced_lanes = 0;
    std::vector<Acquired> acquired, pending;     // pending: needs a fence
    std::vector<std::pair<uint64_t, bool>> seen; // addresses of strong accesses not yet looked up; acquires?

    void tick() {
        clock++;
        shared_segment = global_segment = 0;
    }
};

/// The clocks of a running block and the numbers of its segments.
class BlockOrder {
public:
    void begin(uint64_t number, uint32_t warps, Segments* global, uint64_t launch);

    uint64_t number = 0;
    std::vector<WarpOrder> warps;

    /// The stamps of lane 0 of a warp now; 0 if the numbers have run out.
    Stamp shared_stamp(WarpOrder&);
    Stamp global_stamp(WarpOrder&);
    /// Stamps of shared memory below this are ordered before everything that happens now.
    Stamp shared_ordered() const { return shared_ordered_ << SHARED_SHIFT; }
    /// Stamps of shared memory from this on are of this block.
    Stamp shared_first() const { return shared_first_ << SHARED_SHIFT; }
    /// Stamps of global memory in [first, second) are of this block and ordered before everything now.
    std::pair<Stamp, Stamp> global_ordered() const {
        return {batch_first_ << GLOBAL_SHIFT, std::max(batch_first_, batch_ordered_) << GLOBAL_SHIFT};
    }
    /// Stamps of global memory in [first, second) are of this block.
    std::pair<Stamp, Stamp> global_own() const {
        return {batch_first_ << GLOBAL_SHIFT, batch_end_ << GLOBAL_SHIFT};
    }
    Segment& shared_segment(Stamp s) { return shared_[(s >> SHARED_SHIFT) - shared_first_]; }
    Segment& global_segment(Stamp s) { return (*global_)[s >> GLOBAL_SHIFT]; }
    /// The numbers of shared memory are about to run out: its stamps must be zeroed before the next block.
    bool exhausted() const { return shared_next_ > MAX_SHARED_SEGMENTS / 2; }
    void restart() { shared_next_ = 1; }

    /// Accesses behind `s` (of `segment`) happened before what this lane does now.
    bool ordered(const WarpOrder& me, uint32_t lane, Stamp s, const Segment& segment) const;
    /// The warp has acquired something from other blocks.
    bool acquired(const WarpOrder& w) const { return !acquired_.empty() || !w.acquired.empty(); }

    void warp_sync(WarpOrder&, uint32_t lanes);
    void barrier(const std::vector<WarpOrder*>&);
    void arrive(WarpOrder&, uint32_t lanes, uint64_t object);
    void acquire(WarpOrder&, uint64_t object);
    void fence(WarpOrder&, uint32_t lanes, Beacons&);
    /// A strong access: releases what a fence covered (or everything, if it is a release itself).
    void release(WarpOrder&, uint32_t lanes, uint64_t address, bool itself, Beacons&);
    /// Strong accesses of the warp have happened: what they saw is acquired, or pending until a fence.
    void look(WarpOrder&, Beacons&);

private:
    bool ordered_in_warp(const WarpOrder& me, uint32_t lane, Stamp s, uint32_t clock) const;
    bool ordered_in_block(const WarpOrder& me, Stamp s, const Segment&) const;
    bool ordered_foreign(const WarpOrder& me, Stamp s, const Segment&) const;
    void full_barrier();
    std::shared_ptr<Release> snapshot(const WarpOrder&, uint32_t lanes) const;
    std::vector<uint32_t> view(const WarpOrder&) const;

    std::vector<uint32_t> barrier_;  // clock of each warp at the last barrier of the whole block
    std::vector<Acquired> acquired_; // by all warps, before that barrier
    std::vector<Segment> shared_;    // segments of this block, from shared_first_ on
    uint32_t shared_first_ = 1, shared_next_ = 1, shared_ordered_ = 1;
    Segments* global_ = nullptr;
    uint64_t launch_ = 0;
    uint32_t batch_first_ = 0, batch_next_ = 0, batch_end_ = 0, batch_ordered_ = 0;
    std::unordered_map<uint64_t, std::vector<uint32_t>> objects_; // clock of each thread
    bool fine_ = false;                                           // some warp has `known`
};

} // namespace vgpu
