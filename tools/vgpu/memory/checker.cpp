#include "tools/vgpu/memory/checker.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstring>

namespace vgpu {

/// What is known of a running block: its clocks and the stamps of its shared memory.
struct CheckedBlock {
    BlockOrder order;
    std::vector<Stamp> word[4], byte[4]; // byte: as long as there was no need, empty
    std::vector<uint64_t> pending;       // a bit per word: a copy is on its way
    uint32_t pending_words = 0;
    const Site* pending_site = nullptr;
    struct Cached {
        uint64_t begin = 0, end = 0;
        DeviceMemory* memory = nullptr;
    };
    std::vector<Cached> cached; // two of each warp: the ranges of its last accesses

    void begin(const BlockId&, Segments*, uint64_t launch);
    void need_bytes() {
        if (byte[0].size() < 4 * word[0].size())
            for (auto& b : byte) b.resize(4 * word[0].size());
    }
    Cells cells(uint64_t offset);
    bool is_written(uint64_t offset, uint32_t bytes) const;
};

void CheckedBlock::begin(const BlockId& id, Segments* segments, uint64_t launch) {
    if (order.exhausted()) {
        order.restart();
        for (int k = 0; k < 4; k++) {
            std::fill(word[k].begin(), word[k].end(), 0);
            std::fill(byte[k].begin(), byte[k].end(), 0);
        }
    }
    order.begin(id.number, id.warps, segments, launch);
    size_t words = (id.shared_bytes + 3) / 4;
    if (word[0].size() < words)
        for (auto& w : word) w.resize(words);
    if (!byte[0].empty()) need_bytes();
    pending.assign((words + 63) / 64, 0);
    pending_words = 0;
    cached.assign(2 * id.warps, {});
}

Cells CheckedBlock::cells(uint64_t offset) {
    Cells c;
    for (int k = 0; k < 4; k++) {
        c.word[k] = word[k].data() + offset / 4;
        c.byte[k] = byte[k].data() + offset / 4 * 4;
    }
    return c;
}

bool CheckedBlock::is_written(uint64_t offset, uint32_t bytes) const {
    Stamp first = order.shared_first();
    for (uint64_t at = offset; at < offset + bytes; at = at / 4 * 4 + 4) {
        Stamp w = word[WRITE][at / 4];
        if (w == SPLIT) {
            for (uint64_t b = at; b < std::min(offset + bytes, at / 4 * 4 + 4); b++)
                if (byte[WRITE][b] < first && byte[STRONG][b] < first) return false;
        } else if (w < first && word[STRONG][at / 4] < first) {
            return false;
        }
    }
    return true;
}

static CheckedBlock& checked(BlockId& b) { return *static_cast<CheckedBlock*>(b.data); }
static WarpOrder& order_of(WarpId& w) { return checked(*w.block).order.warps[w.number]; }
static std::atomic<uint64_t> launches = 0;

Checker::Checker(DeviceMemory& memory, StreamClocks* streams, uint32_t operation)
    : memory_(memory), shadow_(memory.shadow()), streams_(streams), operation_(operation),
      launch_(++launches) {
    if (shadow_.segments.next() > MAX_SEGMENTS / 2) {
        shadow_.forget_stamps();
        if (streams_) streams_->forget_runs();
    }
    first_segment_ = shadow_.segments.next();
    uint32_t old = streams_ ? streams_->begin(operation_, shadow_.segments) : first_segment_;
    old_ = old << GLOBAL_SHIFT;
}

Checker::~Checker() {
    for (auto& [key, finding] : found_)
        if (finding.times > 0) report(finding); // those after the first
}

void Checker::block_begin(BlockId& b) {
    std::unique_ptr<CheckedBlock> state;
    {
        std::lock_guard lock(mutex_);
        if (!free_.empty()) {
            state = std::move(free_.back());
            free_.pop_back();
        }
    }
    if (!state) state = std::make_unique<CheckedBlock>();
    state->begin(b, &shadow_.segments, launch_);
    b.data = state.release();
}

void Checker::block_end(BlockId& b) {
    std::unique_ptr<CheckedBlock> state(&checked(b));
    if (state->pending_words) {
        WarpId w{&b, 0};
        uint64_t none[32] = {};
        Access a{.site = state->pending_site,
                 .space = Space::shared,
                 .kind = Kind::copy_issue,
                 .bytes = 4,
                 .lanes = 1,
                 .address = none};
        found(Fault::copy_not_waited, w, a, 0, [&] {
            return std::to_string(4 * state->pending_words) +
                   " bytes of asynchronous copies were never waited for when the block ended";
        });
    }
    b.data = nullptr;
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(state));
}

template <class What> void Checker::found(Fault fault, WarpId& w, const Access& a, uint32_t lane, What what) {
    Finding f;
    {
        std::lock_guard lock(mutex_);
        auto [at, fresh] = found_.try_emplace({fault, a.site});
        if (!fresh) {
            at->second.times++;
            return;
        }
        f = {.fault = fault,
             .kernel = a.site->kernel,
             .source = a.site->source,
             .ptx_line = a.site->ptx_line,
             .block = w.block->block,
             .thread = {w.number * 32 + lane, 0, 0},
             .what = {}};
        at->second = f;
        at->second.times = 0;
    }
    f.what = what();
    report(std::move(f));
}

// Access -------------------------------------------------------------------------------------------------

static const char* verb(Kind k) {
    switch (k) {
    case Kind::load: return "load";
    case Kind::store: return "store";
    case Kind::atomic: return "atomic";
    case Kind::copy_load: return "copy from global memory";
    case Kind::copy_issue: return "copy to shared memory";
    case Kind::copy_landing: return "copy to shared memory";
    }
    return "access";
}

static std::string what_of(const Access& a) {
    return std::string(verb(a.kind)) + " of " + std::to_string(a.bytes) + " bytes";
}

/// Lanes lie side by side in ascending order, all of them, and in whole words.
static bool is_contiguous(const Access& a, uint32_t lanes) {
    if (lanes != ~0u || a.bytes % 4 || a.bytes > 16) return false;
    uint64_t bad = a.address[0] % 4;
    for (uint32_t i = 0; i < 32; i++) bad |= a.address[i] ^ (a.address[0] + uint64_t(i) * a.bytes);
    return bad == 0;
}

uint32_t Checker::access(WarpId& w, const Access& a) {
    if (!a.lanes || (a.space != Space::global && a.space != Space::shared)) return a.lanes;
    uint32_t lanes = a.lanes, crooked = 0;
    const uint64_t align = std::min<uint64_t>(std::bit_floor(a.bytes), 16);
    for (uint32_t i = 0; i < 32; i++) crooked |= uint32_t((a.address[i] & (align - 1)) != 0) << i;
    if (crooked &= lanes) {
        uint32_t lane = std::countr_zero(crooked);
        found(Fault::misaligned, w, a, lane, [&] {
            return what_of(a) + " at an address that is " + std::to_string(a.address[lane] % align) +
                   " beyond a multiple of " + std::to_string(align);
        });
        lanes &= ~crooked;
    }
    return a.space == Space::global ? global_access(w, a, lanes) : shared_access(w, a, lanes);
}

Checker::Range Checker::range_of(uint64_t address) const {
    if (DeviceMemory* memory = memory_.contains(address) ? &memory_ : DeviceMemory::of(address)) {
        std::optional<Allocation> a = memory->find(address);
        if (a && a->live && address < a->end()) return {a->address, a->end(), memory};
        return {};
    }
    auto [begin, end] = find_host_range(address);
    return {begin, end, nullptr};
}

/// The lanes whose addresses are good; of the others, the first is reported. `range` becomes that of the last
/// good lane.
uint32_t Checker::in_bounds(WarpId& w, const Access& a, uint32_t lanes, Range& range) {
    auto* cached = &checked(*w.block).cached[2 * w.number];
    uint64_t low = ~0ull, high = 0;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint64_t address = a.address[std::countr_zero(m)];
        low = std::min(low, address);
        high = std::max(high, address);
    }
    for (int k = 0; k < 2; k++)
        if (low >= cached[k].begin && high + a.bytes <= cached[k].end) {
            range = {cached[k].begin, cached[k].end, cached[k].memory};
            return lanes;
        }
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        uint64_t address = a.address[lane];
        if (address < range.begin || address + a.bytes > range.end) {
            Range r = range_of(address);
            if (address < r.begin || address + a.bytes > r.end) {
                report_bounds(w, a, lane);
                lanes &= ~(1u << lane);
                continue;
            }
            range = r;
        }
    }
    if (range.end) {
        cached[1] = cached[0];
        cached[0] = {range.begin, range.end, range.memory};
    }
    return lanes;
}

void Checker::report_bounds(WarpId& w, const Access& a, uint32_t lane) {
    uint64_t address = a.address[lane];
    DeviceMemory* memory = DeviceMemory::of(address);
    std::optional<Allocation> at = memory ? memory->find(address) : std::nullopt;
    bool released = at && !at->live && address < at->end();
    found(released ? Fault::use_after_free : Fault::out_of_bounds, w, a, lane, [&] {
        char hex[32];
        std::snprintf(hex, sizeof hex, "0x%llx", static_cast<unsigned long long>(address));
        std::string where =
            memory ? memory->describe(address, a.bytes)
                   : std::string(hex) + (address < 4096 ? ", a null pointer" : ", not device memory");
        return what_of(a) + " of global memory: " + where;
    });
}

uint32_t Checker::global_access(WarpId& w, const Access& a, uint32_t lanes) {
    Range range;
    lanes = in_bounds(w, a, lanes, range);
    if (!lanes || !range.memory) return lanes;
    Shadow& shadow = range.memory->shadow();
    bool contiguous = is_contiguous(a, lanes);
    if (a.kind != Kind::store) check_written(w, a, lanes, shadow, contiguous);
    if (a.kind == Kind::store) mark_written(a, lanes, shadow, contiguous);
    if (range.memory != &memory_) return lanes; // another device's: its stamps are not ours
    CheckedBlock& block = checked(*w.block);
    WarpOrder& warp = block.order.warps[w.number];
    block.order.look(warp, beacons_);
    Stamp stamp = block.order.global_stamp(warp);
    if (!stamp) return lanes;
    bool write = a.kind == Kind::store, strong = a.kind == Kind::atomic || a.order != Order::weak;
    Segment& segment = block.order.global_segment(stamp);
    (write || a.kind == Kind::atomic ? segment.store : segment.load) = a.site;
    auto [ordered, ordered_end] = block.order.global_ordered();
    auto [own, own_end] = block.order.global_own();
    Act act = a.kind == Kind::atomic ? Act::strong_write
              : write                ? (strong ? Act::strong_write : Act::write)
                                     : (strong ? Act::strong_read : Act::read);
    Actor me{block.order,
             warp,
             true,
             act,
             stamp,
             old_,
             ordered,
             ordered_end - ordered,
             own,
             own_end - own,
             0,
             block.order.acquired(warp),
             first_segment_ << GLOBAL_SHIFT,
             streams_,
             operation_};
    auto cells = [&](uint64_t address) {
        Cells c;
        for (int k = 0; k < 4; k++) {
            c.word[k] = shadow.words(k, address);
            c.byte[k] = shadow.bytes(k, address / 4 * 4);
        }
        return c;
    };
    conflicts(w, a, lanes, me, contiguous, cells);
    if (strong) synchronise_strong(w, a, lanes, act);
    return lanes;
}

uint32_t Checker::shared_access(WarpId& w, const Access& a, uint32_t lanes) {
    uint32_t outside = 0, size = w.block->shared_bytes;
    for (uint32_t i = 0; i < 32; i++) outside |= uint32_t(a.address[i] + a.bytes > size) << i;
    if (outside &= lanes) {
        uint32_t lane = std::countr_zero(outside);
        found(Fault::out_of_bounds, w, a, lane, [&] {
            return what_of(a) + " of shared memory at offset " + std::to_string(a.address[lane]) +
                   ": the block has " + std::to_string(size) + " bytes";
        });
        lanes &= ~outside;
    }
    if (!lanes) return 0;
    CheckedBlock& block = checked(*w.block);
    WarpOrder& warp = block.order.warps[w.number];
    Stamp stamp = block.order.shared_stamp(warp);
    if (!stamp) return lanes;
    bool landing = a.kind == Kind::copy_landing;
    if (a.bytes % 4) block.need_bytes();
    if (landing) land(block, a, lanes, stamp);
    if (block.pending_words && !landing) check_pending(w, a, lanes);
    if (a.kind == Kind::load || a.kind == Kind::atomic) check_shared_written(w, a, lanes);
    if (landing) return lanes;
    bool write = a.kind == Kind::store || a.kind == Kind::copy_issue || a.kind == Kind::atomic;
    Segment& segment = block.order.shared_segment(stamp);
    (write ? segment.store : segment.load) = a.site;
    // volatile orders nothing between threads that share a block: judged as weak
    bool strong = a.kind == Kind::atomic || (a.order != Order::weak && a.order != Order::volatile_);
    Act act = write ? (strong ? Act::strong_write : Act::write) : (strong ? Act::strong_read : Act::read);
    Actor me{block.order,
             warp,
             false,
             act,
             stamp,
             block.order.shared_ordered(),
             0,
             0,
             0,
             0,
             warp.shared_together << SHARED_SHIFT,
             false};
    conflicts(w, a, lanes, me, is_contiguous(a, lanes), [&](uint64_t offset) { return block.cells(offset); });
    if (a.kind == Kind::copy_issue) issue(block, a, lanes);
    return lanes;
}

// Initialisation -----------------------------------------------------------------------------------------

void Checker::check_written(WarpId& w, const Access& a, uint32_t lanes, Shadow& shadow, bool contiguous) {
    if (contiguous && shadow.written(a.address[0], 32ull * a.bytes) == 32ull * a.bytes) return;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        if (shadow.written(a.address[lane], a.bytes) == a.bytes) continue;
        found(Fault::uninitialised, w, a, lane, [&] {
            uint64_t at = a.address[lane] + shadow.written(a.address[lane], a.bytes);
            DeviceMemory* memory = DeviceMemory::of(at);
            return what_of(a) + ": nobody has written " + (memory ? memory->describe(at, 1) : "it");
        });
    }
}

void Checker::mark_written(const Access& a, uint32_t lanes, Shadow& shadow, bool contiguous) {
    if (contiguous) {
        if (shadow.written(a.address[0], 32ull * a.bytes) < 32ull * a.bytes)
            shadow.mark(a.address[0], 32ull * a.bytes, true);
        return;
    }
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint64_t address = a.address[std::countr_zero(m)];
        if (shadow.written(address, a.bytes) < a.bytes) shadow.mark(address, a.bytes, true);
    }
}

void Checker::check_shared_written(WarpId& w, const Access& a, uint32_t lanes) {
    CheckedBlock& block = checked(*w.block);
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        if (block.is_written(a.address[lane], a.bytes)) continue;
        found(Fault::uninitialised, w, a, lane, [&] {
            return what_of(a) + " of shared memory at offset " + std::to_string(a.address[lane]) +
                   ": this block has not written it";
        });
    }
}

// Asynchronous copies ------------------------------------------------------------------------------------

void Checker::check_pending(WarpId& w, const Access& a, uint32_t lanes) {
    CheckedBlock& block = checked(*w.block);
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

template <class CellsAt> void Checker::conflicts(WarpId& w, const Access& a, uint32_t lanes, const Actor& me,
                                                 bool contiguous, CellsAt cells_at) {
    uint32_t words = a.bytes / 4;
    if (contiguous && step_quietly(me, cells_at(a.address[0]), 32 * words, words, 0)) return;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        uint64_t address = a.address[lane], end = address + a.bytes;
        for (uint64_t at = address; at < end;) {
            if (at % 4 == 0 && end - at >= 4) {
                uint32_t n = std::min<uint64_t>((end - at) / 4, 4);
                if (step_quietly(me, cells_at(at), n, 4, lane)) {
                    at += 4 * n;
                    continue;
                }
            }
            uint32_t n = std::min<uint64_t>(4 - at % 4, end - at);
            Conflict c = step_bytes(me, cells_at(at), at % 4, n, lane);
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

// Synchronisation ----------------------------------------------------------------------------------------

void Checker::synchronise_strong(WarpId& w, const Access& a, uint32_t lanes, Act act) {
    BlockOrder& order = checked(*w.block).order;
    WarpOrder& warp = order_of(w);
    bool releases = a.order == Order::release || a.order == Order::acq_rel;
    bool acquires = a.kind == Kind::atomic || a.order == Order::acquire || a.order == Order::acq_rel;
    uint64_t last = 0;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint64_t address = a.address[std::countr_zero(m)];
        if (address == last) continue;
        last = address;
        if (act == Act::strong_write && (releases || warp.fenced))
            order.release(warp, lanes, address, releases, beacons_);
        if (a.kind != Kind::store) warp.seen.push_back({address, acquires});
    }
    if (releases) warp.tick();
}

void Checker::warp_sync(WarpId& w, uint32_t lanes) {
    checked(*w.block).order.look(order_of(w), beacons_);
    checked(*w.block).order.warp_sync(order_of(w), lanes);
}

void Checker::block_barrier(BlockId& b, uint32_t, WarpId* const* warps, uint32_t count) {
    std::vector<WarpOrder*> who(count);
    for (uint32_t i = 0; i < count; i++) {
        who[i] = &order_of(*warps[i]);
        checked(b).order.look(*who[i], beacons_);
    }
    checked(b).order.barrier(who);
}

void Checker::arrive(WarpId& w, uint32_t lanes, uint64_t object) {
    checked(*w.block).order.arrive(order_of(w), lanes, object);
}
void Checker::acquire(WarpId& w, uint32_t, uint64_t object) {
    checked(*w.block).order.acquire(order_of(w), object);
}
void Checker::fence(WarpId& w, uint32_t lanes, Scope scope) {
    if (scope != Scope::cta) checked(*w.block).order.fence(order_of(w), lanes, beacons_);
}

} // namespace vgpu
