#include "tools/vgpu/count/counter.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <map>
#include <unordered_map>

namespace vgpu {

/// What the blocks of one worker did, by instruction.
struct Tally {
    std::unordered_map<const Site*, Counts> work;
    std::vector<uint64_t> sectors;
    const Site* last = nullptr; // a loop's instruction comes again and again
    Counts* last_work = nullptr;

    Counts& operator[](const Site* site) {
        if (site != last) last = site, last_work = &work[site];
        return *last_work;
    }
};

uint64_t wavefronts_of(const uint64_t* offset, uint32_t bytes, uint32_t lanes) {
    uint32_t words = std::max(1u, bytes / 4), group = std::max(1u, 32 / words); // lanes of a pass
    uint64_t total = 0;
    for (uint32_t first = 0; first < 32; first += group) {
        uint32_t part = lanes >> first & (group == 32 ? ~0u : (1u << group) - 1);
        if (!part) continue;
        uint64_t seen[32][32]; // distinct words of each bank
        uint32_t count[32] = {}, most = 1;
        for (uint32_t m = part; m; m &= m - 1)
            for (uint32_t k = 0; k < words; k++) {
                uint64_t word = offset[first + std::countr_zero(m)] / 4 + k;
                uint32_t bank = word % 32, &n = count[bank];
                if (std::find(seen[bank], seen[bank] + n, word) != seen[bank] + n) continue;
                if (n < 32) seen[bank][n++] = word;
                most = std::max(most, n);
            }
        total += most;
    }
    return total;
}

uint32_t sectors_of(const uint64_t* address, uint32_t bytes, uint32_t lanes, std::vector<uint64_t>& sector) {
    sector.clear();
    bool sorted = true;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint64_t a = address[std::countr_zero(m)];
        for (uint64_t s = a / 32; s <= (a + bytes - 1) / 32; s++) {
            if (!sector.empty() && sector.back() == s) continue;
            sorted &= sector.empty() || sector.back() < s;
            sector.push_back(s);
        }
    }
    if (!sorted) {
        std::sort(sector.begin(), sector.end());
        sector.erase(std::unique(sector.begin(), sector.end()), sector.end());
    }
    return uint32_t(sector.size());
}

Counter::Counter(DeviceMemory& memory, std::string kernel, L2* l2)
    : memory_(memory), kernel_(std::move(kernel)), l2_(l2), epoch_(memory.shadow().next_epoch()) {
    if (l2_) l2_before_ = l2_->counts();
}

Counter::~Counter() {
    Traffic t;
    t.kernel = kernel_;
    t.launches = 1;
    if (l2_) t.l2 = l2_->counts() - l2_before_;
    std::map<uint32_t, LineCounts> lines;
    for (auto& tally : free_)
        for (auto& [site, work] : tally->work) {
            LineCounts& line = lines[site->ptx_line];
            line.source = site->source;
            line.ptx_line = site->ptx_line;
            line += work;
            t += work;
        }
    for (auto& [number, line] : lines) t.lines.push_back(std::move(line));
    add_traffic(std::move(t));
}

void Counter::block_begin(BlockId& b) {
    std::lock_guard lock(mutex_);
    if (free_.empty()) free_.push_back(std::make_unique<Tally>());
    b.data = free_.back().release();
    free_.pop_back();
}

void Counter::block_end(BlockId& b) {
    std::lock_guard lock(mutex_);
    free_.emplace_back(static_cast<Tally*>(b.data));
    b.data = nullptr;
}

static Tally& tally_of(WarpId& w) { return *static_cast<Tally*>(w.block->data); }

void Counter::global(Counts& work, const Access& a, bool write) {
    static thread_local std::vector<uint64_t> sectors;
    Direction& d = write ? work.write : work.read;
    d.requested += uint64_t(a.bytes) * std::popcount(a.lanes);
    d.sectors += sectors_of(a.address, a.bytes, a.lanes, sectors);
    for (uint64_t s : sectors) {
        if (l2_) l2_->access(s, write);
        if (!memory_.contains(s * 32)) continue; // the host's, or wild
        std::atomic_ref<uint32_t> epoch(*memory_.shadow().sector(write, s * 32));
        if (epoch.load(std::memory_order_relaxed) != epoch_ &&
            epoch.exchange(epoch_, std::memory_order_relaxed) != epoch_)
            d.unique++;
    }
}

uint32_t Counter::access(WarpId& w, const Access& a) {
    if (!a.lanes || a.kind == Kind::copy_landing) return a.lanes;
    Counts& work = tally_of(w)[a.site];
    uint64_t bytes = uint64_t(a.bytes) * std::popcount(a.lanes);
    bool write = a.kind == Kind::store || a.kind == Kind::atomic;
    if (a.kind != Kind::copy_issue) { // a cp.async is one instruction
        work.warp_instructions++;
        work.thread_instructions += std::popcount(a.lanes);
        (write ? work.stores : work.loads)++;
    }
    switch (a.space) {
    case Space::global:
        global(work, a, write);
        if (a.kind == Kind::atomic) work.atomics += std::popcount(a.lanes);
        break;
    case Space::shared:
        work.shared_bytes += bytes;
        work.ideal += std::max<uint64_t>(1, (bytes + 127) / 128);
        work.wavefronts += a.bytes <= 16 ? wavefronts_of(a.address, a.bytes, a.lanes) : (bytes + 127) / 128;
        break;
    case Space::local: work.local_bytes += bytes; break;
    case Space::constant: break;
    }
    return a.lanes;
}

void Counter::executed(WarpId& w, const Site& site, Unit unit, uint32_t lanes) {
    Counts& work = tally_of(w)[&site];
    work.warp_instructions++;
    work.thread_instructions += std::popcount(lanes);
    work.tensor += unit == Unit::tensor;
    work.special += unit == Unit::special;
    work.shuffle += unit == Unit::shuffle;
}

} // namespace vgpu
