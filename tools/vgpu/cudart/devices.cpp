#include "tools/vgpu/cudart/devices.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace vgpu::cuda {

const Model& model_of(int arch) {
    static const Model models[] = {{80, "vgpu A100", 108, 164 << 10, 40 << 20, 5120, 1410000, 1215000},
                                   {90, "vgpu H100", 132, 228 << 10, 50 << 20, 5120, 1980000, 2619000},
                                   {100, "vgpu B200", 148, 228 << 10, 126 << 20, 8192, 1965000, 3996000}};
    for (const Model& m : models)
        if (m.arch == arch) return m;
    throw Error("there is no virtual device of architecture " + std::to_string(arch));
}

int registers_of_block(int per_thread, int threads) {
    int warp = (per_thread * 32 + 255) / 256 * 256;
    return warp * ((threads + 31) / 32);
}

int blocks_per_multiprocessor(int arch, const CUkern_st::State& s, dim3 block, size_t dynamic_shared) {
    const Model& m = model_of(arch);
    int threads = int(block.x * block.y * block.z), warps = (threads + 31) / 32;
    if (threads > int(s.function->max_threads) || threads > 1024) return 0;
    size_t shared = s.function->static_shared + dynamic_shared;
    if (shared > shared_optin(arch)) return 0;
    size_t taken = (shared + 1024 + 127) / 128 * 128;
    int blocks = std::min({32, 64 / warps, int(size_t(m.shared_per_multiprocessor) / taken)});
    if (int used = registers_of_block(s.resources.registers, threads))
        blocks = std::min(blocks, 65536 / used);
    return blocks;
}

namespace {

int attribute(const Device& d, int arch, cudaDeviceAttr a) {
    const Model& m = model_of(arch);
    switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxBlockDimX: return 1024;
    case cudaDevAttrMaxBlockDimY: return 1024;
    case cudaDevAttrMaxBlockDimZ: return 64;
    case cudaDevAttrMaxGridDimX: return 0x7fffffff;
    case cudaDevAttrMaxGridDimY: return 65535;
    case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
    case cudaDevAttrTotalConstantMemory: return 65536;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxRegistersPerBlock: return 65536;
    case cudaDevAttrClockRate: return m.clock_khz;
    case cudaDevAttrMultiProcessorCount: return m.multiprocessors;
    case cudaDevAttrIntegrated: return 0;
    case cudaDevAttrCanMapHostMemory: return 0;
    case cudaDevAttrConcurrentKernels: return 1;
    case cudaDevAttrEccEnabled: return 1;
    case cudaDevAttrPciBusId: return d.number + 1;
    case cudaDevAttrPciDeviceId: return 0;
    case cudaDevAttrPciDomainId: return 0;
    case cudaDevAttrMemoryClockRate: return m.memory_clock_khz;
    case cudaDevAttrGlobalMemoryBusWidth: return m.bus_bits;
    case cudaDevAttrL2CacheSize: return m.l2;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrAsyncEngineCount: return 3;
    case cudaDevAttrUnifiedAddressing: return 1;
    case cudaDevAttrComputeCapabilityMajor: return arch / 10;
    case cudaDevAttrComputeCapabilityMinor: return arch % 10;
    case cudaDevAttrStreamPrioritiesSupported: return 1;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return m.shared_per_multiprocessor;
    case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
    case cudaDevAttrManagedMemory: return 0;
    case cudaDevAttrCooperativeLaunch: return 1;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return int(shared_optin(arch));
    case cudaDevAttrMaxBlocksPerMultiprocessor: return 32;
    case cudaDevAttrReservedSharedMemoryPerBlock: return 1024;
    case cudaDevAttrMemoryPoolsSupported: return 1;
    case cudaDevAttrClusterLaunch: return arch >= 90;
    case cudaDevAttrPageableMemoryAccess: return 0;
    case cudaDevAttrHostRegisterSupported: return 1;
    default: refuse(cudaErrorNotSupported, "device attribute %d is not known here", int(a));
    }
}

cudaDeviceProp properties(const Device& d, int arch) {
    const Model& m = model_of(arch);
    cudaDeviceProp p{};
    std::snprintf(p.name, sizeof p.name, "%s", m.name);
    std::memcpy(p.uuid.bytes, "vgpu device    ", 16);
    p.uuid.bytes[15] = char('0' + d.number);
    p.totalGlobalMem = runtime().options.memory;
    p.sharedMemPerBlock = 49152;
    p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.warpSize = 32;
    p.memPitch = 0x7fffffff;
    p.maxThreadsPerBlock = p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
    p.maxThreadsDim[2] = 64;
    p.maxGridSize[0] = 0x7fffffff, p.maxGridSize[1] = p.maxGridSize[2] = 65535;
    p.totalConstMem = 65536;
    p.major = arch / 10, p.minor = arch % 10;
    p.textureAlignment = 512, p.texturePitchAlignment = 32;
    p.multiProcessorCount = m.multiprocessors;
    p.concurrentKernels = p.ECCEnabled = p.unifiedAddressing = p.streamPrioritiesSupported = 1;
    p.pciBusID = d.number + 1;
    p.asyncEngineCount = 3;
    p.memoryBusWidth = m.bus_bits;
    p.l2CacheSize = m.l2;
    p.persistingL2CacheMaxSize = m.l2 / 4 * 3;
    p.maxThreadsPerMultiProcessor = 2048;
    p.globalL1CacheSupported = p.localL1CacheSupported = 1;
    p.sharedMemPerMultiprocessor = size_t(m.shared_per_multiprocessor);
    p.sharedMemPerBlockOptin = shared_optin(arch);
    p.reservedSharedMemPerBlock = 1024;
    p.maxBlocksPerMultiProcessor = 32;
    p.cooperativeLaunch = p.computePreemptionSupported = p.hostRegisterSupported = p.memoryPoolsSupported = 1;
    p.clusterLaunch = arch >= 90;
    return p;
}

} // namespace

} // namespace vgpu::cuda

using namespace vgpu;
using namespace vgpu::cuda;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    Runtime& r = runtime(); // not by call(), which looks at the current device: there may be none
    std::unique_lock lock(r.queue.mutex);
    *count = int(r.devices.size());
    if (*count == 0) r.last_error() = cudaErrorNoDevice;
    return *count ? cudaSuccess : cudaErrorNoDevice;
}

// The current device may be any that exists; a failed one only refuses work.
cudaError_t cudaSetDevice(int number) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    if (number < 0 || number >= int(r.devices.size()))
        return r.failed("cudaSetDevice",
                        {cudaErrorInvalidDevice, "there is no device " + std::to_string(number), false});
    Runtime::current_device() = number;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* number) {
    return call("cudaGetDevice", [&](Runtime&) { *number = Runtime::current_device(); });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int number) {
    return call("cudaGetDeviceProperties",
                [&](Runtime& r) { *p = properties(r.device(number), r.options.arch); });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr a, int number) {
    return call("cudaDeviceGetAttribute",
                [&](Runtime& r) { *value = attribute(r.device(number), r.options.arch, a); });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int number) {
    return call("cudaDeviceGetPCIBusId", [&](Runtime& r) {
        std::snprintf(text, size_t(length), "0000:%02x:00.0", r.device(number).number + 1);
    });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    return call("cudaDeviceGetStreamPriorityRange", [&](Runtime&) {
        if (least) *least = 0;
        if (greatest) *greatest = -5;
    });
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int number, int peer) {
    return call("cudaDeviceCanAccessPeer",
                [&](Runtime& r) { *can = r.device(number).number != r.device(peer).number; });
}

// Copies between devices work without it; kernels see their own device's memory only.
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
    return call("cudaDeviceEnablePeerAccess", [&](Runtime& r) {
        if (flags || r.device(peer).number == Runtime::current_device())
            refuse(cudaErrorInvalidDevice, "device %d for its own peer, or flags that are not 0", peer);
    });
}

cudaError_t cudaDeviceSynchronize() {
    return call("cudaDeviceSynchronize",
                [&](Runtime& r) { r.synchronize_device(Runtime::current_device()); });
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

} // extern "C"
