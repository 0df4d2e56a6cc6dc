#include "tools/vgpu/count/l2.h"

#include <algorithm>
#include <bit>

namespace vgpu {

namespace {
constexpr uint64_t LINE = 128, SECTOR = 32;
}

L2::Counts L2::Counts::operator-(const Counts& o) const {
    return {reads - o.reads, read_hits - o.read_hits, writes - o.writes, dram_read - o.dram_read,
            dram_written - o.dram_written};
}

L2::L2(Options o)
    : options_(o), sets_(std::max<uint64_t>(1, o.bytes / LINE / o.ways)), lines_(sets_ * o.ways) {}

void L2::evict(Line& line) {
    counts_.dram_written += SECTOR * std::popcount(line.dirty);
    line = {};
}

/// The line with this number, which enters if it was not there.
L2::Line& L2::find(uint64_t number) {
    // Strides of powers of two would all fall into one set: real caches hash too.
    uint64_t mixed = (number ^ number >> 20) * 0x9e3779b97f4a7c15ull;
    Line* set = &lines_[(mixed >> 32) % sets_ * options_.ways];
    Line* end = set + options_.ways;
    Line* at = std::find_if(set, end, [&](const Line& l) { return l.tag == number; });
    if (at == end) {
        at = std::find_if(set, end, [](const Line& l) { return l.tag == ~0ull; });
        if (at == end) {
            if (options_.replacement == Replacement::random)
                at = set + ((mixed + clock_ * 0xd1342543de82ef95ull) >> 33) % options_.ways;
            else
                at = std::min_element(set, end, [](auto& a, auto& b) { return a.used < b.used; });
            evict(*at);
        }
        at->tag = number;
        at->used = clock_;
    }
    if (options_.replacement == Replacement::lru) at->used = clock_;
    return *at;
}

void L2::access(uint64_t sector, bool write) {
    std::lock_guard lock(mutex_);
    clock_++;
    Line& line = find(sector / (LINE / SECTOR));
    uint8_t bit = uint8_t(1 << sector % (LINE / SECTOR));
    if (write) {
        counts_.writes++;
        line.dirty |= bit;
    } else {
        counts_.reads++;
        if (line.present & bit)
            counts_.read_hits++;
        else
            counts_.dram_read += SECTOR;
    }
    line.present |= bit;
}

void L2::flush() {
    std::lock_guard lock(mutex_);
    for (Line& line : lines_) evict(line);
}

L2::Counts L2::counts() const {
    std::lock_guard lock(mutex_);
    return counts_;
}

} // namespace vgpu
