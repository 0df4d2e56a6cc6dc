// One allocator for every arena, weight and scratch: 2 MiB aligned and on huge pages where the system has
// them. (C of a 3072x768 GEMM on 4 KiB pages ran at 0.62 of its speed on huge pages: page walks, not
// arithmetic.) Memory of another device comes from that device's backend.
#pragma once
#include <cstddef>
#include <utility>

#include "engine/device/device.h"

namespace nvl {

/// Owns `bytes` of zeroed memory; pages cost nothing until they are touched.
class Memory {
public:
    Memory() = default;
    explicit Memory(size_t bytes);
    /// Elsewhere than on the CPU the content is garbage, and the address is not for the host.
    Memory(size_t bytes, Device device, const char* what);
    Memory(Memory&& o) noexcept { swap(o); }
    Memory& operator=(Memory&& o) noexcept {
        swap(o);
        return *this;
    }
    ~Memory();
    std::byte* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    explicit operator bool() const { return data_; }

private:
    void swap(Memory& o) {
        std::swap(data_, o.data_), std::swap(bytes_, o.bytes_), std::swap(length_, o.length_);
        std::swap(device_, o.device_);
    }
    std::byte* data_ = nullptr;
    size_t bytes_ = 0, length_ = 0; // asked for, and mapped
    Device device_ = Device::cpu;
};

/// Scratch of this thread that only ever grows; the content is garbage. `slot` separates users that overlap
/// in time.
std::byte* scratch(size_t bytes, int slot = 0);

} // namespace nvl
