#include "tools/vgpu/cudart/copy.h"

#include <cstring>
#include <optional>

namespace vgpu::cuda {

namespace {

Fault fault_of(DeviceMemory& m, uint64_t address) {
    auto a = m.find(address);
    return a && !a->live && address < a->end() ? Fault::use_after_free : Fault::out_of_bounds;
}

uint64_t span(const Rect& r, size_t width, size_t height) {
    return height ? r.pitch * (height - 1) + width : 0;
}

// Both devices of a copy between peers have to be accessible.
struct Access2 {
    std::optional<Unlocked> to, from;
    Access2(uint64_t a, uint64_t b) {
        DeviceMemory *x = DeviceMemory::of(a), *y = DeviceMemory::of(b);
        if (x) to.emplace(*x);
        if (y) from.emplace(*y);
    }
};

} // namespace

void check_range(Runtime& r, const char* what, uint64_t address, size_t bytes) {
    DeviceMemory* m = DeviceMemory::of(address);
    if (!m || m->valid(address, bytes)) return;
    std::string text = m->describe(address, bytes);
    r.finding(fault_of(*m, address), what, text);
    refuse_quietly(cudaErrorInvalidValue, "%s", text.c_str());
}

bool check_touch(const std::string& what, uint64_t address, size_t bytes, bool reads) {
    DeviceMemory* m = DeviceMemory::of(address);
    if (!m || bytes == 0) return true;
    if (!m->valid(address, bytes)) {
        runtime().finding(fault_of(*m, address), what, m->describe(address, bytes));
        return false;
    }
    if (!reads || !runtime().options.check) return true;
    if (uint64_t n = m->written(address, bytes); n < bytes)
        runtime().finding(Fault::uninitialised, what,
                          "byte " + std::to_string(n) + " of " + std::to_string(bytes) +
                              " has never been written: " + m->describe(address + n, 1));
    return true;
}

Work copy_work(Rect to, Rect from, size_t width, size_t height) {
    Work w;
    w.kind = WorkKind::copy;
    w.what = "copy of " + std::to_string(width * height) + " bytes from " +
             (from.device ? "device" : "host") + " to " + (to.device ? "device" : "host");
    if (from.device) w.touches.push_back({from.address, span(from, width, height), false});
    if (to.device) w.touches.push_back({to.address, span(to, width, height), true});
    w.run = [=](Op& op) {
        Access2 access(to.address, from.address);
        DeviceMemory *target = DeviceMemory::of(to.address), *source = DeviceMemory::of(from.address);
        for (size_t row = 0; row < height; row++) {
            uint64_t a = to.address + row * to.pitch, b = from.address + row * from.pitch;
            // Unwritten bytes may travel inside a device, as in a kernel that pads; the host wants values.
            if (!check_touch(op.work.what, a, width, false) || !check_touch(op.work.what, b, width, !target))
                return;
            std::memmove(reinterpret_cast<void*>(a), reinterpret_cast<const void*>(b), width);
            if (target && source == target)
                target->copy_written(a, b, width);
            else if (target) {
                target->mark_written(a, width);
                if (source)
                    for (uint64_t n = 0; (n += source->written(b + n, width - n)) < width; n++)
                        target->mark_unwritten(a + n, 1);
            }
        }
    };
    return w;
}

Work fill_work(Rect to, int value, size_t width, size_t height) {
    Work w;
    w.kind = WorkKind::set, w.what = "fill of " + std::to_string(width * height) + " bytes";
    w.touches.push_back({to.address, span(to, width, height), true});
    w.run = [=](Op& op) {
        Access2 access(to.address, to.address);
        for (size_t row = 0; row < height; row++) {
            uint64_t a = to.address + row * to.pitch;
            if (!check_touch(op.work.what, a, width, false)) return;
            std::memset(reinterpret_cast<void*>(a), value, width);
            if (DeviceMemory* m = DeviceMemory::of(a)) m->mark_written(a, width);
        }
    };
    return w;
}

} // namespace vgpu::cuda
