// A segment is a stretch of one warp's life between two synchronisations; its accesses to memory carry its
// number in their stamps:
//
//   stamp  = segment (25 bits) | several warps | several lanes | lane (5 bits)
//
// Numbers grow with time, so "older than everything that was ordered before me" is one comparison. 0: none.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>

namespace vgpu {

using Stamp = uint32_t;
constexpr int STAMP_SHIFT = 7;
constexpr Stamp MANY_LANES = 1u << 5, MANY_WARPS = 1u << 6;
constexpr Stamp SPLIT = ~0u; // the bytes of this word have their own stamps
constexpr uint32_t MAX_SEGMENTS = (1u << (32 - STAMP_SHIFT)) - 2;

inline uint32_t segment_of(Stamp s) { return s >> STAMP_SHIFT; }
inline uint32_t lane_of(Stamp s) { return s & 31; }

struct Segment {
    uint64_t block; // linear number
    uint32_t warp, clock;
};

/// Numbers of a device, taken in batches so that workers seldom meet.
class Segments {
public:
    static constexpr uint32_t BATCH = 1024;

    /// First number of a batch of BATCH; 0 if there are none left.
    uint32_t take() {
        uint32_t first = next_.fetch_add(BATCH, std::memory_order_relaxed);
        if (first > MAX_SEGMENTS - BATCH) {
            next_.fetch_sub(BATCH, std::memory_order_relaxed);
            return 0;
        }
        auto& page = pages_[first / BATCH];
        if (!page) page = std::make_unique<Segment[]>(BATCH);
        return first;
    }
    Segment& operator[](uint32_t number) { return pages_[number / BATCH][number % BATCH]; }
    /// Numbers below this one were taken before.
    uint32_t next() const { return next_.load(std::memory_order_relaxed); }
    void restart() { next_.store(BATCH, std::memory_order_relaxed); }

private:
    std::atomic<uint32_t> next_ = BATCH; // 0 is no segment
    std::unique_ptr<std::unique_ptr<Segment[]>[]> pages_ =
        std::make_unique<std::unique_ptr<Segment[]>[]>(MAX_SEGMENTS / BATCH + 1);
};

} // namespace vgpu
