// The memory of one virtual device: a reserved region of the process, so that device addresses are host
// addresses, but ones that the host cannot touch outside of Unlocked.
//
// With checks on, every allocation starts as NaN (all bytes 0xff), lies between red zones, and its addresses
// are not given out again after its release: use after free stays visible.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "tools/vgpu/memory/reserved.h"
#include "tools/vgpu/memory/shadow.h"

namespace vgpu {

struct Allocation {
    uint64_t address = 0, bytes = 0;
    uint64_t number = 0; // counts allocations of the device from 1
    bool live = true;
    uint64_t end() const { return address + bytes; }
};

class DeviceMemory {
public:
    struct Options {
        int device = 0;
        uint64_t limit = 4ull << 30;    // bytes that fit
        bool checked = true;            // red zones, poison, no re-use, PROT_NONE
        uint64_t region = 128ull << 30; // address space: how much can ever be allocated without re-use
    };
    explicit DeviceMemory(Options);
    ~DeviceMemory();
    DeviceMemory(const DeviceMemory&) = delete;

    /// Aligned to 256 bytes; 0 if it does not fit.
    uint64_t allocate(uint64_t bytes);
    /// False if `address` is not the beginning of a live allocation.
    bool release(uint64_t address);

    int device() const { return options_.device; }
    uint64_t limit() const { return options_.limit; }
    uint64_t used() const;
    uint64_t begin() const { return begin_; }
    bool contains(uint64_t address) const { return address - begin_ < options_.region; }
    /// The allocation, live or released, that contains `address`, or else the nearest one below it.
    std::optional<Allocation> find(uint64_t address) const;
    /// Live allocations in the order they were made: what is left at the end is a leak.
    std::vector<Allocation> live() const;
    /// Where `bytes` at `address` lie: "4 bytes behind the 1024 of allocation 3".
    std::string describe(uint64_t address, uint64_t bytes) const;
    /// The whole range is inside one live allocation.
    bool valid(uint64_t address, uint64_t bytes) const;

    /// What has been written, byte by byte. Copies and fills of the host must say so.
    void mark_written(uint64_t address, uint64_t bytes);
    void mark_unwritten(uint64_t address, uint64_t bytes);
    /// As a copy does it: unwritten bytes stay unwritten.
    void copy_written(uint64_t to, uint64_t from, uint64_t bytes);
    /// Number of written bytes at the beginning of the range.
    uint64_t written(uint64_t address, uint64_t bytes) const;

    Shadow& shadow() { return *shadow_; }

    /// The device whose region contains `address`, or null.
    static DeviceMemory* of(uint64_t address);

private:
    friend class Unlocked;
    void unlock();
    void lock();
    uint64_t place(uint64_t bytes);

    Options options_;
    Reserved region_;
    uint64_t begin_ = 0, top_ = 0; // top_: offset of what was never given out
    std::unique_ptr<Shadow> shadow_;
    mutable std::shared_mutex mutex_; // of everything below
    std::map<uint64_t, Allocation> allocations_;
    std::multimap<uint64_t, uint64_t> released_; // order of re-use (size or time) -> address
    uint64_t used_ = 0, count_ = 0, releases_ = 0;
    std::mutex lock_mutex_;
    std::atomic<int> unlocked_ = 0;
};

/// While one exists, device memory is accessible: around kernels and copies. Cheap when nested; one around a
/// whole queue of kernels is best, since the outermost pays two mprotect calls.
class Unlocked {
public:
    explicit Unlocked(DeviceMemory& memory) : memory_(memory) { memory_.unlock(); }
    ~Unlocked() { memory_.lock(); }
    Unlocked(const Unlocked&) = delete;

private:
    DeviceMemory& memory_;
};

/// Memory outside of devices that kernels may access all the same: page-locked memory of the host.
void add_host_range(uint64_t address, uint64_t bytes);
void remove_host_range(uint64_t address);
/// Ends of the range that contains `address`; {0, 0} if there is none.
std::pair<uint64_t, uint64_t> find_host_range(uint64_t address);

} // namespace vgpu
