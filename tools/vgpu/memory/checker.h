// The checks of one launch: bounds, alignment, initialisation, use after free, asynchronous copies that were
// not waited for, and data races by happens-before, which sees a race in every schedule, also where the
// result happens to be right.
//
// What counts as a race: two accesses to one byte, at least one of them a write, at least one of them weak
// (strong: atomics; relaxed, acquire, release; volatile in global memory), and neither ordered before the
// other.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tools/vgpu/machine/observer.h"
#include "tools/vgpu/memory/cells.h"
#include "tools/vgpu/memory/device_memory.h"
#include "tools/vgpu/memory/order.h"
#include "tools/vgpu/memory/streams.h"
#include "tools/vgpu/report.h"

namespace vgpu {

struct CheckedBlock;

class Checker : public Observer {
public:
    /// `streams` and the operation that this launch is, where several streams exist.
    explicit Checker(DeviceMemory& memory, StreamClocks* streams = nullptr, uint32_t operation = 0);
    ~Checker() override;

    void block_begin(BlockId&) override;
    void block_end(BlockId&) override;
    uint32_t access(WarpId&, const Access&) override;
    void warp_sync(WarpId&, uint32_t lanes) override;
    void block_barrier(BlockId&, uint32_t id, WarpId* const* warps, uint32_t count) override;
    void arrive(WarpId&, uint32_t lanes, uint64_t object) override;
    void acquire(WarpId&, uint32_t lanes, uint64_t object) override;
    void fence(WarpId&, uint32_t lanes, Scope) override;

private:
    struct Range { // accessible addresses [begin, end)
        uint64_t begin = 0, end = 0;
        DeviceMemory* memory = nullptr; // null: of the host
    };
    Range range_of(uint64_t address) const;
    uint32_t global_access(WarpId&, const Access&, uint32_t lanes);
    uint32_t shared_access(WarpId&, const Access&, uint32_t lanes);
    uint32_t in_bounds(WarpId&, const Access&, uint32_t lanes, Range&);
    void report_bounds(WarpId&, const Access&, uint32_t lane);
    void check_written(WarpId&, const Access&, uint32_t lanes, Shadow&, bool contiguous);
    void mark_written(const Access&, uint32_t lanes, Shadow&, bool contiguous);
    void check_shared_written(WarpId&, const Access&, uint32_t lanes);
    void check_pending(WarpId&, const Access&, uint32_t lanes);
    void issue(CheckedBlock&, const Access&, uint32_t lanes);
    void land(CheckedBlock&, const Access&, uint32_t lanes, Stamp);
    void conflicts(WarpId&, const Access&, uint32_t lanes, const Actor&, bool contiguous, const Cells&);
    void report_race(WarpId&, const Access&, uint32_t lanes, const Actor&, uint32_t lane, uint64_t at,
                     Conflict);
    void synchronise_strong(WarpId&, const Access&, uint32_t lanes, Act);

    /// Reports `what()` for the first of its kind at this site; later ones are only counted.
    void found(Fault, WarpId&, const Access&, uint32_t lane, const std::function<std::string()>& what);

    DeviceMemory& memory_;
    Shadow& shadow_;
    StreamClocks* streams_;
    uint32_t operation_;
    uint64_t launch_;
    Stamp old_; // stamps below are of launches that are ordered before this one
    uint32_t first_segment_;
    Beacons beacons_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<CheckedBlock>> free_; // blocks that have ended leave their arrays here
    std::map<std::pair<Fault, const Site*>, Finding> found_;
};

/// "load of 4 bytes"
std::string what_of(const Access&);

/// Two observers that see the same launch.
class Both : public Observer {
public:
    Both(Observer& first, Observer& second) : observers_{&first, &second} {}
    void block_begin(BlockId&) override;
    void block_end(BlockId&) override;
    uint32_t access(WarpId&, const Access&) override;
    void warp_sync(WarpId&, uint32_t lanes) override;
    void block_barrier(BlockId&, uint32_t id, WarpId* const* warps, uint32_t count) override;
    void arrive(WarpId&, uint32_t lanes, uint64_t object) override;
    void acquire(WarpId&, uint32_t lanes, uint64_t object) override;
    void fence(WarpId&, uint32_t lanes, Scope) override;
    void executed(WarpId&, const Site&, Unit, uint32_t lanes) override;

private:
    Observer* observers_[2];
};

} // namespace vgpu
