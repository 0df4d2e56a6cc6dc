#include "tools/vgpu/memory/device_memory.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#include "tools/vgpu/report.h"

namespace vgpu {

namespace {
constexpr uint64_t ALIGN = 256, RED_ZONE = 256;
constexpr int MAX_DEVICES = 64;

uint64_t round_up(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

std::array<std::atomic<DeviceMemory*>, MAX_DEVICES> devices;
struct sigaction previous;
} // namespace

// The host touched device memory -------------------------------------------------------------------------

static void on_fault(int signal, siginfo_t* info, void* context) {
    uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
    if (DeviceMemory* memory = DeviceMemory::of(address)) {
        report({.fault = Fault::host_access,
                .kernel = "",
                .source = "",
                .what = "the host dereferenced device memory (device " + std::to_string(memory->device()) +
                        ", " + memory->describe(address, 1) + "); use cudaMemcpy"});
        print_findings();
        _exit(1);
    }
    // Not ours: whoever was here before, or the default, when the instruction faults again.
    if ((previous.sa_flags & SA_SIGINFO) && previous.sa_sigaction)
        previous.sa_sigaction(signal, info, context);
    else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
        previous.sa_handler(signal);
    else
        ::signal(signal, SIG_DFL);
}

static void install_handler() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        sigaction(SIGSEGV, &action, &previous);
    });
}

DeviceMemory* DeviceMemory::of(uint64_t address) {
    for (auto& slot : devices) {
        DeviceMemory* memory = slot.load(std::memory_order_acquire);
        if (!memory) return nullptr; // slots are filled from the front
        if (memory->contains(address)) return memory;
    }
    return nullptr;
}

// Life ---------------------------------------------------------------------------------------------------

DeviceMemory::DeviceMemory(Options options) : options_(options), region_(options.region, !options.checked) {
    begin_ = reinterpret_cast<uint64_t>(region_.data());
    shadow_ = std::make_unique<Shadow>(begin_, options.region);
    if (options.checked) install_handler();
    madvise(region_.data(), region_.size(), MADV_HUGEPAGE); // makes PROT_NONE and back cheap
    for (auto& slot : devices) {
        DeviceMemory* empty = nullptr;
        if (slot.compare_exchange_strong(empty, this)) return;
    }
    throw std::runtime_error("vgpu: more than " + std::to_string(MAX_DEVICES) + " devices");
}

DeviceMemory::~DeviceMemory() {
    auto at = std::find_if(devices.begin(), devices.end(), [&](auto& slot) { return slot == this; });
    for (; at != devices.end(); ++at) at->store(at + 1 == devices.end() ? nullptr : (at + 1)->load());
}

void DeviceMemory::unlock() {
    if (!options_.checked) return;
    std::lock_guard lock(lock_mutex_);
    if (unlocked_++ == 0) region_.protect(0, top_, true);
}

void DeviceMemory::lock() {
    if (!options_.checked) return;
    std::lock_guard lock(lock_mutex_);
    if (--unlocked_ == 0) region_.protect(0, top_, false);
}

// Allocations --------------------------------------------------------------------------------------------

/// An offset for `bytes` (red zone included), fresh if there is any; UINT64_MAX if there is no room.
uint64_t DeviceMemory::place(uint64_t bytes) {
    auto reuse = [&](auto found) {
        uint64_t address = found->second;
        released_.erase(found);
        allocations_.erase(address);
        shadow_->drop(address, bytes);
        return address - begin_;
    };
    if (!options_.checked) { // by size: the smallest that is not much too large
        auto found = released_.lower_bound(bytes);
        if (found != released_.end() && found->first <= 2 * bytes) return reuse(found);
    }
    if (top_ + bytes <= options_.region) {
        std::lock_guard lock(lock_mutex_);
        uint64_t offset = top_;
        top_ += bytes;
        if (options_.checked && unlocked_) region_.protect(offset, bytes, true);
        return offset;
    }
    for (auto it = released_.begin(); it != released_.end(); ++it) // by time: the oldest that is large enough
        if (round_up(allocations_[it->second].bytes) + RED_ZONE >= bytes) return reuse(it);
    return UINT64_MAX;
}

uint64_t DeviceMemory::allocate(uint64_t bytes) {
    std::unique_lock lock(mutex_);
    uint64_t charged = round_up(bytes);
    if (bytes == 0 || bytes > options_.limit || used_ + charged > options_.limit) return 0;
    uint64_t offset = place(charged + RED_ZONE);
    if (offset == UINT64_MAX) return 0;
    used_ += charged;
    uint64_t address = begin_ + offset;
    allocations_[address] = {address, bytes, ++count_, true};
    if (options_.checked) {
        Unlocked guard(*this);
        std::memset(region_.data() + offset, 0xff, charged + RED_ZONE);
    }
    return address;
}

bool DeviceMemory::release(uint64_t address) {
    std::unique_lock lock(mutex_);
    auto found = allocations_.find(address);
    if (found == allocations_.end() || !found->second.live) return false;
    Allocation& a = found->second;
    a.live = false;
    used_ -= round_up(a.bytes);
    region_.drop(address - begin_, a.bytes);
    shadow_->drop(address, a.bytes);
    released_.emplace(options_.checked ? ++releases_ : round_up(a.bytes) + RED_ZONE, address);
    return true;
}

uint64_t DeviceMemory::used() const {
    std::shared_lock lock(mutex_);
    return used_;
}

std::optional<Allocation> DeviceMemory::find(uint64_t address) const {
    std::shared_lock lock(mutex_);
    auto above = allocations_.upper_bound(address);
    if (above == allocations_.begin()) return std::nullopt;
    return std::prev(above)->second;
}

std::vector<Allocation> DeviceMemory::live() const {
    std::shared_lock lock(mutex_);
    std::vector<Allocation> list;
    for (auto& [address, a] : allocations_)
        if (a.live) list.push_back(a);
    std::sort(list.begin(), list.end(), [](auto& a, auto& b) { return a.number < b.number; });
    return list;
}

bool DeviceMemory::valid(uint64_t address, uint64_t bytes) const {
    std::optional<Allocation> a = find(address);
    return a && a->live && address + bytes <= a->end() && address + bytes >= address;
}

std::string DeviceMemory::describe(uint64_t address, uint64_t bytes) const {
    std::optional<Allocation> below = find(address);
    auto next = find(address + bytes - 1); // a little too low an address lies in front of the next one
    if (!next || (below && next->address == below->address)) next = find(address + bytes - 1 + RED_ZONE);
    auto text = [](const Allocation& a) {
        return " the " + std::to_string(a.bytes) + " bytes of " + (a.live ? "" : "the released ") +
               "allocation " + std::to_string(a.number);
    };
    if (below && address < below->end()) {
        if (address + bytes <= below->end())
            return "byte " + std::to_string(address - below->address) + " of" + text(*below);
        return std::to_string(address + bytes - below->end()) + " bytes beyond the end of" + text(*below);
    }
    bool ahead =
        next && next->address > address && (!below || next->address - address < address - below->end() + 1);
    if (ahead) return std::to_string(next->address - address) + " bytes in front of" + text(*next);
    if (below) return std::to_string(address - below->end()) + " bytes behind" + text(*below);
    return "no allocation is near";
}

// Written bytes ------------------------------------------------------------------------------------------

void DeviceMemory::mark_written(uint64_t a, uint64_t bytes) { shadow_->mark(a, bytes, true); }
void DeviceMemory::mark_unwritten(uint64_t a, uint64_t bytes) { shadow_->mark(a, bytes, false); }
void DeviceMemory::copy_written(uint64_t to, uint64_t from, uint64_t n) { shadow_->copy(to, from, n); }
uint64_t DeviceMemory::written(uint64_t a, uint64_t bytes) const { return shadow_->written(a, bytes); }

// Memory of the host -------------------------------------------------------------------------------------

namespace {
struct HostRanges {
    std::shared_mutex mutex;
    std::map<uint64_t, uint64_t> ends;
};
HostRanges& host_ranges() {
    static HostRanges* ranges = new HostRanges;
    return *ranges;
}
} // namespace

void add_host_range(uint64_t address, uint64_t bytes) {
    std::unique_lock lock(host_ranges().mutex);
    host_ranges().ends[address] = address + bytes;
}

void remove_host_range(uint64_t address) {
    std::unique_lock lock(host_ranges().mutex);
    host_ranges().ends.erase(address);
}

std::pair<uint64_t, uint64_t> find_host_range(uint64_t address) {
    std::shared_lock lock(host_ranges().mutex);
    auto above = host_ranges().ends.upper_bound(address);
    if (above == host_ranges().ends.begin()) return {0, 0};
    auto [begin, end] = *std::prev(above);
    return address < end ? std::pair(begin, end) : std::pair<uint64_t, uint64_t>(0, 0);
}

} // namespace vgpu
