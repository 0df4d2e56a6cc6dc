// Where tensors live and kernels run. The CPU needs no backend; another device is one object that registers
// itself at start-up, in programs that it is linked into: the rest of the engine has no #ifdef and no header
// of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace nvl {

enum class Device : uint8_t { cpu, cuda };
const char* name_of(Device d);

/// Launches that were captured once: replayed as a whole, with the arguments they had.
class DeviceGraph {
public:
    virtual ~DeviceGraph() = default;
    virtual void replay() = 0;
};

/// Memory and order of one device. Everything happens in the order of the calls, kernels included, but not
/// before the call returns: only download() and synchronize() wait.
class DeviceBackend {
public:
    virtual ~DeviceBackend() = default;
    virtual std::string description() const = 0; // for people
    /// Floating point operations a second of matrix products, as the maker counts them: on f32, or on bf16.
    virtual double peak_flops(bool bf16) const = 0;

    /// Uninitialised, 256-byte aligned. Null if there is not enough.
    virtual std::byte* allocate(size_t bytes) = 0;
    virtual void release(std::byte* data) noexcept = 0;
    virtual size_t free_bytes() const = 0;

    /// `from` may be reused as soon as the call returns.
    virtual void upload(std::byte* to, const void* from, size_t bytes) = 0;
    virtual void download(void* to, const std::byte* from, size_t bytes) = 0;
    virtual void copy(std::byte* to, const std::byte* from, size_t bytes) = 0;
    virtual void fill(std::byte* to, uint8_t value, size_t bytes) = 0;
    virtual void synchronize() = 0;

    /// What the kernels of this thread find as scratch memory from now on.
    virtual void workspace(std::byte* data, int64_t bytes) = 0;
    /// Records what `launches` launches, instead of running it.
    virtual std::unique_ptr<DeviceGraph> capture(const std::function<void()>& launches) = 0;
};

/// The backend of a device; an error in one line if this program has none or the machine has no such device.
DeviceBackend& backend_of(Device d);
bool is_linked(Device d);

/// "cpu" or "cuda", usable here; else an error that says what to do.
Device device_from(const std::string& name);

struct RegisterDevice {
    RegisterDevice(Device d, std::unique_ptr<DeviceBackend> (*open)());
};

} // namespace nvl
