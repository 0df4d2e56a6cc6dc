#include "engine/base/memory.h"

#include <sys/mman.h>

#include <array>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace nvl {

constexpr size_t HUGE_PAGE = 2u << 20;

Memory::Memory(size_t bytes) : bytes_(bytes) {
    if (bytes < HUGE_PAGE / 4) { // small: an ordinary page-aligned piece, no rounding up to 2 MiB
        size_t length = (bytes + 4095) / 4096 * 4096 + 4096;
        void* p = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED, "out of memory: %zu bytes", bytes);
        data_ = static_cast<std::byte*>(p), length_ = length;
        return;
    }
    size_t length = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void* p = mmap(nullptr, length + HUGE_PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(p != MAP_FAILED, "out of memory: %zu bytes", bytes);
    auto begin = reinterpret_cast<uintptr_t>(p), aligned = (begin + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (aligned > begin) munmap(p, aligned - begin);
    if (size_t tail = begin + HUGE_PAGE - aligned) munmap(reinterpret_cast<void*>(aligned + length), tail);
    madvise(reinterpret_cast<void*>(aligned), length, MADV_HUGEPAGE);
    data_ = reinterpret_cast<std::byte*>(aligned), length_ = length;
}
Memory::Memory(size_t bytes, Device device, const char* what) {
    if (device == Device::cpu) {
        *this = Memory(bytes);
        return;
    }
    DeviceBackend& backend = backend_of(device);
    data_ = backend.allocate(bytes), bytes_ = bytes, device_ = device;
    if (data_) return;
    size_t free = backend.free_bytes();
    std::string wanted = human(double(bytes), "B"), have = human(double(free), "B");
    fail("%s: no room for %s: %s wanted, %s free, %s missing; use smaller batches, bf16 or recompute",
         name_of(device), what, wanted.c_str(), have.c_str(),
         human(bytes > free ? double(bytes - free) : 0, "B").c_str());
}
Memory::~Memory() {
    if (!data_) return;
    if (device_ == Device::cpu)
        munmap(data_, length_);
    else
        backend_of(device_).release(data_);
}

std::byte* scratch(size_t bytes, int slot) {
    thread_local std::array<Memory, 8> memory;
    Memory& m = memory.at(size_t(slot));
    if (m.bytes() < bytes + 256)
        m = Memory(bytes + bytes / 4 + 256); // 256: vector loads may run past the end
    return m.data();
}

} // namespace nvl
