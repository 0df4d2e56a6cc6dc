// Ops that move or fill bytes, checked as a kernel would be.
#pragma once
#include "tools/vgpu/cudart/runtime.h"

namespace vgpu::cuda {

/// `height` rows of `width` bytes.
struct Rect {
    uint64_t address;
    size_t pitch;
    bool device = false; // set by classify
};

/// Refuses when the range is not inside one live allocation of its device (host memory is anything).
void check_range(Runtime&, const char* what, uint64_t address, size_t bytes);
/// A finding for a range that an op is about to touch. False: do not touch it.
bool check_touch(const std::string& what, uint64_t address, size_t bytes, bool reads);

Work copy_work(Rect to, Rect from, size_t width, size_t height);
Work fill_work(Rect to, int value, size_t width, size_t height);

} // namespace vgpu::cuda
