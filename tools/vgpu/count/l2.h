// A set-associative L2 between the sectors that kernels ask for and DRAM. Lines of 128 bytes in 4 sectors; a
// read of an absent sector fetches that sector; a write makes its sector present and dirty without a fetch;
// dirty sectors go to DRAM when their line leaves.
//
// Real caches differ (hashing, two partitions, eviction hints): the model says whether re-use fits, not more.
#pragma once
#include <cstdint>
#include <mutex>
#include <vector>

namespace vgpu {

enum class Replacement : uint8_t { lru, fifo, random };

class L2 {
public:
    struct Options {
        uint64_t bytes = 40ull << 20; // A100; H100: 50 MiB
        uint32_t ways = 16;
        Replacement replacement = Replacement::lru;
    };
    struct Counts {
        uint64_t reads = 0, read_hits = 0, writes = 0; // sectors
        uint64_t dram_read = 0, dram_written = 0;      // bytes
        Counts operator-(const Counts&) const;
    };
    explicit L2(Options);
    L2() : L2(Options()) {}

    /// `sector` is an address / 32.
    void access(uint64_t sector, bool write);
    /// Dirty sectors go to DRAM, as at the end of everything.
    void flush();
    Counts counts() const;

private:
    struct Line {
        uint64_t tag = ~0ull;
        uint8_t present = 0, dirty = 0; // a bit per sector
        uint64_t used = 0;              // order of replacement
    };
    Line& find(uint64_t line);
    void evict(Line&);

    Options options_;
    uint64_t sets_;
    std::vector<Line> lines_;
    Counts counts_;
    uint64_t clock_ = 0;
    mutable std::mutex mutex_;
};

} // namespace vgpu
