// Allocation, copies and fills.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

#include "tools/vgpu/cudart/copy.h"

using namespace vgpu;
using namespace vgpu::cuda;

namespace {

uint64_t at(const void* p) { return reinterpret_cast<uint64_t>(p); }

void allocate(Runtime& r, void** p, size_t bytes) {
    *p = nullptr;
    if (bytes == 0) return;
    Device& d = r.current();
    uint64_t address = d.memory->allocate(bytes);
    if (!address)
        refuse_quietly(cudaErrorMemoryAllocation,
                       "%zu bytes do not fit: %llu of %llu are in use (VGPU_MEMORY)", bytes,
                       static_cast<unsigned long long>(d.memory->used()),
                       static_cast<unsigned long long>(d.memory->limit()));
    *p = reinterpret_cast<void*>(address);
}

void release(Runtime& r, const char* what, uint64_t address) {
    DeviceMemory* m = DeviceMemory::of(address);
    if (!m || !m->release(address)) {
        std::string text = m ? m->describe(address, 1) : std::string("host memory");
        refuse(cudaErrorInvalidValue, "%s: this is not the beginning of an allocation (%s)", what,
               text.c_str());
    }
}

void pin(Runtime& r, void* p, size_t bytes) {
    for (auto& [begin, size] : r.pinned)
        if (at(p) < begin + size && begin < at(p) + bytes)
            refuse(cudaErrorHostMemoryAlreadyRegistered, "the range overlaps one that is registered");
    r.pinned[at(p)] = bytes;
    add_host_range(at(p), bytes);
}

void unpin(Runtime& r, const void* p, cudaError_t status) {
    if (!r.pinned.erase(at(p))) refuse(status, "%p is not the beginning of page-locked memory", p);
    remove_host_range(at(p));
}

void allocate_host(Runtime& r, void** p, size_t bytes) {
    *p = bytes ? std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096) : nullptr;
    if (!bytes) return;
    if (!*p) refuse_quietly(cudaErrorMemoryAllocation, "%zu bytes of host memory", bytes);
    std::memset(*p, 0xff, bytes);
    pin(r, *p, bytes);
}

void check_direction(const Rect& to, const Rect& from, cudaMemcpyKind kind) {
    static const char* names[] = {"host to host", "host to device", "device to host", "device to device"};
    if (kind == cudaMemcpyDefault) return;
    if (kind < 0 || kind > cudaMemcpyDefault)
        refuse(cudaErrorInvalidMemcpyDirection, "direction %d", int(kind));
    int found = (from.device ? 2 : 0) + (to.device ? 1 : 0);
    if (found != int(kind))
        refuse(cudaErrorInvalidValue, "the call says %s, the pointers are %s", names[kind], names[found]);
}

/// One copy of any direction. Only asynchronous calls may be captured; synchronous ones use the legacy
/// stream.
void copy(Runtime& r, const char* what, Rect to, Rect from, size_t width, size_t height, cudaMemcpyKind kind,
          CUstream_st* stream, bool wait) {
    to.device = r.owner(to.address) != nullptr, from.device = r.owner(from.address) != nullptr;
    check_direction(to, from, kind);
    if (width == 0 || height == 0) return;
    if (width > to.pitch || width > from.pitch)
        refuse(cudaErrorInvalidPitchValue, "rows of %zu bytes with pitches %zu and %zu", width, to.pitch,
               from.pitch);
    size_t to_bytes = to.pitch * (height - 1) + width, from_bytes = from.pitch * (height - 1) + width;
    check_range(r, what, to.address, to_bytes);
    check_range(r, what, from.address, from_bytes);
    if (wait) r.not_while_capturing("a synchronous copy");
    auto* source = reinterpret_cast<const std::byte*>(from.address);
    bool pageable_from = !from.device && !r.is_pinned(source, from_bytes);
    bool pageable_to = !to.device && !r.is_pinned(reinterpret_cast<void*>(to.address), to_bytes);
    if (stream->capture) {
        r.enqueue(stream, copy_work(to, from, width, height));
        return;
    }
    if (pageable_from && to.device && !wait) { // staged now; the device gets it later
        auto staged = std::make_shared<std::vector<std::byte>>(source, source + from_bytes);
        Work w = copy_work(to, {at(staged->data()), from.pitch}, width, height);
        w.run = [staged, run = std::move(w.run)](Op& op) { run(op); };
        r.enqueue(stream, std::move(w));
        return;
    }
    r.enqueue(stream, copy_work(to, from, width, height));
    // The host waits for copies to and from it; those between devices go on behind its back, even if
    // synchronous.
    if ((wait && !(to.device && from.device)) || pageable_to) r.synchronize(stream);
}

void fill(Runtime& r, const char* what, Rect to, int value, size_t width, size_t height,
          CUstream_st* stream) {
    if (width == 0 || height == 0) return;
    if (!r.owner(to.address) && !r.is_pinned(reinterpret_cast<void*>(to.address), width))
        refuse(cudaErrorInvalidValue, "this is host memory");
    if (width > to.pitch)
        refuse(cudaErrorInvalidPitchValue, "rows of %zu bytes with a pitch of %zu", width, to.pitch);
    check_range(r, what, to.address, to.pitch * (height - 1) + width);
    r.enqueue(stream, fill_work(to, value, width, height));
}

uint64_t symbol(Runtime& r, const void* shadow, size_t bytes, size_t offset) {
    const Variable& v = r.variable(shadow);
    if (offset + bytes > v.bytes)
        refuse(cudaErrorInvalidValue, "bytes %zu to %zu of %s, which has %llu", offset, offset + bytes,
               v.name.c_str(), static_cast<unsigned long long>(v.bytes));
    return v.address + offset;
}

} // namespace

extern "C" {

cudaError_t cudaMalloc(void** p, size_t bytes) {
    return call("cudaMalloc", [&](Runtime& r) {
        r.not_while_capturing("cudaMalloc");
        allocate(r, p, bytes);
    });
}

cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t stream) {
    return call("cudaMallocAsync", [&](Runtime& r) {
        if (r.stream(stream)->capture) refuse(cudaErrorNotSupported, "allocations inside a graph");
        allocate(r, p, bytes);
    });
}

// Waits for the device, as the real one does.
cudaError_t cudaFree(void* p) {
    return call("cudaFree", [&](Runtime& r) {
        r.not_while_capturing("cudaFree");
        if (!p) return;
        Device* d = r.owner(at(p));
        if (d) r.synchronize_device(d->number);
        release(r, "cudaFree", at(p));
    });
}

cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
    return call("cudaFreeAsync", [&](Runtime& r) {
        CUstream_st* s = r.stream(stream);
        if (s->capture) refuse(cudaErrorNotSupported, "allocations inside a graph");
        auto a = r.owner(at(p)) ? r.owner(at(p))->memory->find(at(p)) : std::nullopt;
        if (!a || !a->live || a->address != at(p)) refuse(cudaErrorInvalidValue, "%p is no allocation", p);
        Work w;
        w.what = "cudaFreeAsync";
        w.touches.push_back({a->address, a->bytes, true});
        w.run = [p, &r](Op&) { release(r, "cudaFreeAsync", at(p)); };
        r.enqueue(s, std::move(w));
    });
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
    return call("cudaMallocHost", [&](Runtime& r) { allocate_host(r, p, bytes); });
}

cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned flags) {
    return call("cudaHostAlloc", [&](Runtime& r) {
        if (flags & ~7u) refuse(cudaErrorInvalidValue, "flags 0x%x", flags);
        allocate_host(r, p, bytes);
    });
}

cudaError_t cudaFreeHost(void* p) {
    return call("cudaFreeHost", [&](Runtime& r) {
        if (!p) return;
        for (auto& d : r.devices) r.synchronize_device(d->number);
        unpin(r, p, cudaErrorInvalidValue);
        std::free(p);
    });
}

cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned flags) {
    return call("cudaHostRegister", [&](Runtime& r) {
        if (!p || !bytes) refuse(cudaErrorInvalidValue, "%zu bytes at %p", bytes, p);
        if (flags & ~15u) refuse(cudaErrorInvalidValue, "flags 0x%x", flags);
        pin(r, p, bytes);
    });
}

cudaError_t cudaHostUnregister(void* p) {
    return call("cudaHostUnregister", [&](Runtime& r) { unpin(r, p, cudaErrorHostMemoryNotRegistered); });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    return call("cudaMemGetInfo", [&](Runtime& r) {
        DeviceMemory& m = *r.current().memory;
        *total = m.limit(), *free = m.limit() - m.used();
    });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
    return call("cudaPointerGetAttributes", [&](Runtime& r) {
        *a = {};
        a->device = -1;
        if (Device* d = r.owner(at(p))) {
            a->type = cudaMemoryTypeDevice, a->device = d->number, a->devicePointer = const_cast<void*>(p);
        } else if (r.is_pinned(p, 1)) {
            a->type = cudaMemoryTypeHost, a->device = Runtime::current_device();
            a->hostPointer = a->devicePointer = const_cast<void*>(p);
        } else {
            a->type = cudaMemoryTypeUnregistered, a->hostPointer = const_cast<void*>(p);
        }
    });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return call("cudaMemcpy", [&](Runtime& r) {
        copy(r, "cudaMemcpy", {at(to), bytes}, {at(from), bytes}, bytes, 1, kind, r.stream(nullptr), true);
    });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return call("cudaMemcpyAsync", [&](Runtime& r) {
        copy(r, "cudaMemcpyAsync", {at(to), bytes}, {at(from), bytes}, bytes, 1, kind, r.stream(stream),
             false);
    });
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                         size_t height, cudaMemcpyKind kind) {
    return call("cudaMemcpy2D", [&](Runtime& r) {
        copy(r, "cudaMemcpy2D", {at(to), to_pitch}, {at(from), from_pitch}, width, height, kind,
             r.stream(nullptr), true);
    });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    return call("cudaMemcpy2DAsync", [&](Runtime& r) {
        copy(r, "cudaMemcpy2DAsync", {at(to), to_pitch}, {at(from), from_pitch}, width, height, kind,
             r.stream(stream), false);
    });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
    return call("cudaMemcpyPeerAsync", [&](Runtime& r) {
        if (r.owner(at(to)) != &r.device(to_device) || r.owner(at(from)) != &r.device(from_device))
            refuse(cudaErrorInvalidValue, "the pointers belong to other devices");
        copy(r, "cudaMemcpyPeerAsync", {at(to), bytes}, {at(from), bytes}, bytes, 1, cudaMemcpyDefault,
             r.stream(stream), false);
    });
}

cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t bytes) {
    return cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, nullptr);
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    return call("cudaMemset", [&](Runtime& r) {
        fill(r, "cudaMemset", {at(to), bytes}, value, bytes, 1, r.stream(nullptr));
    });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    return call("cudaMemsetAsync", [&](Runtime& r) {
        fill(r, "cudaMemsetAsync", {at(to), bytes}, value, bytes, 1, r.stream(stream));
    });
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
    return call("cudaMemset2DAsync", [&](Runtime& r) {
        fill(r, "cudaMemset2DAsync", {at(to), pitch}, value, width, height, r.stream(stream));
    });
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
    return cudaMemset2DAsync(to, pitch, value, width, height, nullptr);
}

cudaError_t cudaMemcpyToSymbolAsync(const void* shadow, const void* from, size_t bytes, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream) {
    return call("cudaMemcpyToSymbolAsync", [&](Runtime& r) {
        copy(r, "cudaMemcpyToSymbolAsync", {symbol(r, shadow, bytes, offset), bytes}, {at(from), bytes},
             bytes, 1, kind, r.stream(stream), false);
    });
}

cudaError_t cudaMemcpyToSymbol(const void* shadow, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
    return call("cudaMemcpyToSymbol", [&](Runtime& r) {
        copy(r, "cudaMemcpyToSymbol", {symbol(r, shadow, bytes, offset), bytes}, {at(from), bytes}, bytes, 1,
             kind, r.stream(nullptr), true);
    });
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* shadow, size_t bytes, size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t stream) {
    return call("cudaMemcpyFromSymbolAsync", [&](Runtime& r) {
        copy(r, "cudaMemcpyFromSymbolAsync", {at(to), bytes}, {symbol(r, shadow, bytes, offset), bytes},
             bytes, 1, kind, r.stream(stream), false);
    });
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* shadow, size_t bytes, size_t offset,
                                 cudaMemcpyKind kind) {
    return call("cudaMemcpyFromSymbol", [&](Runtime& r) {
        copy(r, "cudaMemcpyFromSymbol", {at(to), bytes}, {symbol(r, shadow, bytes, offset), bytes}, bytes, 1,
             kind, r.stream(nullptr), true);
    });
}

cudaError_t cudaGetSymbolAddress(void** p, const void* shadow) {
    return call("cudaGetSymbolAddress",
                [&](Runtime& r) { *p = reinterpret_cast<void*>(r.variable(shadow).address); });
}

cudaError_t cudaGetSymbolSize(size_t* bytes, const void* shadow) {
    return call("cudaGetSymbolSize", [&](Runtime& r) { *bytes = r.variable(shadow).bytes; });
}

} // extern "C"
