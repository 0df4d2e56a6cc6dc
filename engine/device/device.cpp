#include "engine/device/device.h"

#include <array>
#include <mutex>

#include "engine/base/check.h"

namespace nvl {

namespace {
struct Entry {
    std::unique_ptr<DeviceBackend> (*open)() = nullptr;
    std::unique_ptr<DeviceBackend> backend; // opened at the first use
    std::mutex opening;
};
Entry& entry(Device d) {
    static std::array<Entry, 2> entries;
    return entries.at(size_t(d));
}
} // namespace

const char* name_of(Device d) { return d == Device::cpu ? "cpu" : "cuda"; }

RegisterDevice::RegisterDevice(Device d, std::unique_ptr<DeviceBackend> (*open)()) { entry(d).open = open; }

bool is_linked(Device d) { return d == Device::cpu || entry(d).open; }

DeviceBackend& backend_of(Device d) {
    Entry& e = entry(d);
    check(e.open, "--device %s: this build has no CUDA; run `make cuda`, or use --device cpu", name_of(d));
    std::lock_guard lock(e.opening);
    if (!e.backend) e.backend = e.open();
    return *e.backend;
}

Device device_from(const std::string& name) {
    if (name == "cpu") return Device::cpu;
    check(name == "cuda", "--device expects cpu or cuda, found \"%s\"", name.c_str());
    backend_of(Device::cuda);
    return Device::cuda;
}

} // namespace nvl
