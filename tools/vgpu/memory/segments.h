// A segment is a stretch of one warp's life between two synchronisations; its accesses to memory carry its
// number in their stamps:
//
//   global memory   segment (25 bits)             | several warps | several lanes | lane (5 bits)
//   shared memory   segment (20 bits) | warp (5)  | several warps | several lanes | lane (5 bits)
//
// Numbers grow with time, so "older than everything that was ordered before me" is one comparison. 0: none.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>

#include "tools/vgpu/machine/observer.h"

namespace vgpu {

using Stamp = uint32_t;
constexpr int GLOBAL_SHIFT = 7, SHARED_SHIFT = 12;
constexpr Stamp MANY_LANES = 1u << 5, MANY_WARPS = 1u << 6, WARP_BITS = 31u << 7;
constexpr Stamp SPLIT = ~0u; // the bytes of this word have their own stamps
constexpr uint32_t MAX_SEGMENTS = (1u << (32 - GLOBAL_SHIFT)) - 2;
constexpr uint32_t MANY_SEGMENTS = 1u << 22; // when to begin anew
constexpr uint32_t MAX_SHARED_SEGMENTS = (1u << (32 - SHARED_SHIFT)) - 2;

inline uint32_t lane_of(Stamp s) { return s & 31; }

struct Segment {
    uint64_t block = 0; // linear number
    uint32_t warp = 0, clock = 0;
    const Site *load = nullptr, *store = nullptr; // the last ones, for reports
};

/// Numbers of a device, taken in batches so that workers seldom meet.
class Segments {
public:
    static constexpr uint32_t BATCH = 256;

    /// The first of `count` (at most BATCH) new numbers; 0 if there are none left.
    uint32_t take(uint32_t count = BATCH) {
        std::lock_guard lock(mutex_);
        if (next_ + count > MAX_SEGMENTS) return 0;
        uint32_t first = next_;
        next_ += count;
        for (uint32_t page : {first / BATCH, (next_ - 1) / BATCH})
            if (!pages_[page]) pages_[page] = std::make_unique<Segment[]>(BATCH);
        return first;
    }
    Segment& operator[](uint32_t number) { return pages_[number / BATCH][number % BATCH]; }
    /// Numbers below this one were taken before.
    uint32_t next() const {
        std::lock_guard lock(mutex_);
        return next_;
    }
    void restart() {
        std::lock_guard lock(mutex_);
        next_ = 1;
    }

private:
    mutable std::mutex mutex_;
    uint32_t next_ = 1; // 0 is no segment
    std::unique_ptr<std::unique_ptr<Segment[]>[]> pages_ =
        std::make_unique<std::unique_ptr<Segment[]>[]>(MAX_SEGMENTS / BATCH + 1);
};

} // namespace vgpu
