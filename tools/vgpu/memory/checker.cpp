#include "tools/vgpu/memory/checker.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>

#include "tools/vgpu/memory/checked_block.h"

namespace vgpu {

static std::atomic<uint64_t> launches = 0;

Checker::Checker(DeviceMemory& memory, StreamClocks* streams, uint32_t operation)
    : memory_(memory), shadow_(memory.shadow()), streams_(streams), operation_(operation),
      launch_(++launches) {
    if (shadow_.segments.next() > MANY_SEGMENTS) { // their table should stay small
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

void Checker::found(Fault fault, WarpId& w, const Access& a, uint32_t lane,
                    const std::function<std::string()>& what) {
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

std::string what_of(const Access& a) {
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
    auto* cached = &checked(w).cached[2 * w.number];
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
    CheckedBlock& block = checked(w);
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
    Cells cells;
    for (int k = 0; k < 4; k++) {
        cells.word[k] = shadow.words(k, memory_.begin());
        cells.byte[k] = shadow.bytes(k, memory_.begin());
    }
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
    CheckedBlock& block = checked(w);
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
    conflicts(w, a, lanes, me, is_contiguous(a, lanes), block.cells());
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
    CheckedBlock& block = checked(w);
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t lane = std::countr_zero(m);
        if (block.is_written(a.address[lane], a.bytes)) continue;
        found(Fault::uninitialised, w, a, lane, [&] {
            return what_of(a) + " of shared memory at offset " + std::to_string(a.address[lane]) +
                   ": this block has not written it";
        });
    }
}

// Synchronisation ----------------------------------------------------------------------------------------

void Checker::synchronise_strong(WarpId& w, const Access& a, uint32_t lanes, Act act) {
    BlockOrder& order = checked(w).order;
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
    checked(w).order.look(order_of(w), beacons_);
    checked(w).order.warp_sync(order_of(w), lanes);
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
    checked(w).order.arrive(order_of(w), lanes, object);
}
void Checker::acquire(WarpId& w, uint32_t, uint64_t object) { checked(w).order.acquire(order_of(w), object); }
void Checker::fence(WarpId& w, uint32_t lanes, Scope scope) {
    if (scope != Scope::cta) checked(w).order.fence(order_of(w), lanes, beacons_);
}

} // namespace vgpu
