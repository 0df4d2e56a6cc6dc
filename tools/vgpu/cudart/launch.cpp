// Kernel launches: the limits of hardware first, then an op that runs the machine.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "tools/vgpu/cudart/devices.h"
#include "tools/vgpu/cudart/runtime.h"
#include "tools/vgpu/machine/launch.h"
#include "tools/vgpu/vgpu.h"

namespace vgpu::cuda {

namespace {

struct Config {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
    dim3 cluster{1, 1, 1};
    bool cooperative = false;
};

Dim3 dim(dim3 d) { return {d.x, d.y, d.z}; }

[[noreturn]] void beyond(const CUkern_st& k, cudaError_t status, const std::string& what) {
    runtime().finding(Fault::launch_limit, k.name, what);
    refuse_quietly(status, "%s: %s", k.name.c_str(), what.c_str());
}

std::string text(dim3 d) {
    return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

void check_threads(const CUkern_st& k, const CUkern_st::State& s, const Config& c) {
    const Function& f = *s.function;
    uint64_t threads = dim(c.block).count();
    if (threads == 0 || threads > 1024 || c.block.x > 1024 || c.block.y > 1024 || c.block.z > 64)
        beyond(k, cudaErrorInvalidConfiguration,
               "a block of " + text(c.block) + ": 1 to 1024 threads, z up to 64");
    if (c.grid.x == 0 || c.grid.y == 0 || c.grid.z == 0 || c.grid.x > 0x7fffffff || c.grid.y > 65535 ||
        c.grid.z > 65535)
        beyond(k, cudaErrorInvalidConfiguration,
               "a grid of " + text(c.grid) + ": 1 to (2147483647,65535,65535)");
    if (threads > f.max_threads)
        beyond(k, cudaErrorLaunchOutOfResources,
               std::to_string(threads) + " threads, its launch bounds say " + std::to_string(f.max_threads));
    const Dim3& q = f.required_threads;
    if (q.x && (q.x != c.block.x || q.y != c.block.y || q.z != c.block.z))
        beyond(k, cudaErrorInvalidValue, "a block of " + text(c.block) + ", not the one it requires");
    int used = registers_of_block(s.resources.registers, int(threads));
    if (used > 65536)
        beyond(k, cudaErrorLaunchOutOfResources,
               std::to_string(threads) + " threads of " + std::to_string(s.resources.registers) +
                   " registers: " + std::to_string(used) + " of 65536");
}

void check_shared(const CUkern_st& k, const CUkern_st::State& s, const Config& c) {
    size_t fixed = s.function->static_shared, most = shared_optin(runtime().options.arch);
    size_t allowed =
        s.max_dynamic_shared ? size_t(*s.max_dynamic_shared) : 49152 - std::min<size_t>(fixed, 49152);
    if (c.shared > allowed || fixed + c.shared > most)
        beyond(k, cudaErrorInvalidValue,
               std::to_string(fixed) + " bytes of static and " + std::to_string(c.shared) +
                   " of dynamic shared memory: " +
                   (fixed + c.shared > most ? "a block has " + std::to_string(most)
                                            : "allowed are " + std::to_string(allowed) +
                                                  " (cudaFuncAttributeMaxDynamicSharedMemorySize)"));
}

void check_cluster(const CUkern_st& k, const CUkern_st::State& s, Config& c) {
    const Dim3& q = s.function->cluster;
    if (q.x) {
        if (dim(c.cluster).count() > 1 && (c.cluster.x != q.x || c.cluster.y != q.y || c.cluster.z != q.z))
            beyond(k, cudaErrorInvalidClusterSize,
                   "a cluster of " + text(c.cluster) + ", not the one it requires");
        c.cluster = dim3(q.x, q.y, q.z);
    }
    uint64_t blocks = dim(c.cluster).count();
    if (blocks <= 1) return;
    if (runtime().options.arch < 90) beyond(k, cudaErrorNotSupported, "clusters need sm_90");
    if (blocks > (s.non_portable_cluster ? 16 : 8))
        beyond(k, cudaErrorInvalidClusterSize,
               "a cluster of " + std::to_string(blocks) + " blocks: up to 8 (16 if allowed)");
    if (c.grid.x % c.cluster.x || c.grid.y % c.cluster.y || c.grid.z % c.cluster.z)
        beyond(k, cudaErrorInvalidClusterSize,
               "the grid " + text(c.grid) + " is no multiple of the cluster " + text(c.cluster));
}

void launch(Runtime& r, CUkern_st& k, void** args, Config c) {
    CUstream_st* stream = r.stream(c.stream);
    CUkern_st::State& s = r.state(k, stream->device);
    check_threads(k, s, c);
    check_shared(k, s, c);
    check_cluster(k, s, c);
    if (stream->device != Runtime::current_device())
        refuse(cudaErrorInvalidResourceHandle, "%s: the stream belongs to device %d, current is %d",
               k.name.c_str(), stream->device, Runtime::current_device());
    Launch l;
    l.function = s.function;
    l.grid = dim(c.grid), l.block = dim(c.block), l.cluster = dim(c.cluster);
    l.dynamic_shared = uint32_t(c.shared);
    l.cooperative = c.cooperative;
    l.parameters.resize(s.function->parameter_bytes);
    for (size_t i = 0; i < s.function->parameters.size(); i++) {
        const Parameter& p = s.function->parameters[i];
        std::memcpy(l.parameters.data() + p.offset, args[i], p.bytes);
    }
    Work w;
    w.kind = WorkKind::kernel, w.what = "kernel " + k.name;
    w.run = [l = std::move(l), &r](Op& op) mutable { r.run_kernel(op, l); };
    r.enqueue(stream, std::move(w));
}

thread_local std::vector<Config> pushed;

} // namespace

} // namespace vgpu::cuda

using namespace vgpu;
using namespace vgpu::cuda;

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st* stream) {
    pushed.push_back({grid, block, shared, stream});
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    if (pushed.empty()) return cudaErrorMissingConfiguration;
    Config c = pushed.back();
    pushed.pop_back();
    *grid = c.grid, *block = c.block, *shared = c.shared;
    *static_cast<cudaStream_t*>(stream) = c.stream;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
    return call("cudaGetKernel", [&](Runtime& r) { *kernel = r.kernel(stub); });
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** args, size_t shared,
                               cudaStream_t stream) {
    return call("launch", [&](Runtime& r) {
        launch(r, *r.kernel(kernel), args, {grid, block, shared, stream});
    });
}

cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** args, size_t shared,
                             cudaStream_t stream) {
    return call("cudaLaunchKernel", [&](Runtime& r) {
        launch(r, *r.kernel(stub), args, {grid, block, shared, stream});
    });
}

cudaError_t cudaLaunchCooperativeKernel(const void* stub, dim3 grid, dim3 block, void** args, size_t shared,
                                        cudaStream_t stream) {
    return call("cudaLaunchCooperativeKernel", [&](Runtime& r) {
        CUkern_st& k = *r.kernel(stub);
        int resident =
            blocks_per_multiprocessor(r.options.arch, r.state(k, Runtime::current_device()), block, shared) *
            multiprocessors_of(r.options.arch);
        if (dim(grid).count() > uint64_t(resident))
            beyond(k, cudaErrorCooperativeLaunchTooLarge,
                   "a cooperative grid of " + text(grid) + ": " + std::to_string(resident) +
                       " blocks fit at once");
        launch(r, k, args, {grid, block, shared, stream, {1, 1, 1}, true});
    });
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub, void** args) {
    return call("cudaLaunchKernelExC", [&](Runtime& r) {
        Config c{config->gridDim, config->blockDim, config->dynamicSmemBytes, config->stream};
        for (unsigned i = 0; i < config->numAttrs; i++) {
            const cudaLaunchAttribute& a = config->attrs[i];
            switch (a.id) {
            case cudaLaunchAttributeIgnore:
            case cudaLaunchAttributePriority: break;
            case cudaLaunchAttributeClusterDimension:
                c.cluster = dim3(a.val.clusterDim.x, a.val.clusterDim.y, a.val.clusterDim.z);
                break;
            case cudaLaunchAttributeCooperative: c.cooperative = a.val.cooperative != 0; break;
            // With early launch the kernel may start before its predecessor has ended; waiting for it, as
            // here, is always allowed, but does not find a missing griddepcontrol.wait.
            case cudaLaunchAttributeProgrammaticStreamSerialization: break;
            default: refuse(cudaErrorNotSupported, "launch attribute %d is not known here", int(a.id));
            }
        }
        launch(r, *r.kernel(stub), args, c);
    });
}

cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute, int value) {
    return call("cudaFuncSetAttribute", [&](Runtime& r) {
        CUkern_st& k = *r.kernel(stub);
        CUkern_st::State& s = r.state(k, Runtime::current_device());
        int most = int(shared_optin(r.options.arch)) - int(s.function->static_shared);
        switch (attribute) {
        case cudaFuncAttributeMaxDynamicSharedMemorySize:
            if (value < 0 || value > most)
                refuse(cudaErrorInvalidValue, "%s: %d bytes of dynamic shared memory, sm_%d has %d for it",
                       k.name.c_str(), value, r.options.arch, most);
            s.max_dynamic_shared = value;
            break;
        case cudaFuncAttributePreferredSharedMemoryCarveout:
            if (value < -1 || value > 100) refuse(cudaErrorInvalidValue, "a carveout of %d %%", value);
            break;
        case cudaFuncAttributeNonPortableClusterSizeAllowed: s.non_portable_cluster = value != 0; break;
        default: refuse(cudaErrorNotSupported, "function attribute %d is not known here", int(attribute));
        }
    });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* stub) {
    return call("cudaFuncGetAttributes", [&](Runtime& r) {
        CUkern_st& k = *r.kernel(stub);
        const CUkern_st::State& s = r.state(k, Runtime::current_device());
        const Function& f = *s.function;
        *a = {};
        a->sharedSizeBytes = f.static_shared;
        a->localSizeBytes = size_t(std::max<int>(s.resources.stack, int(f.local)));
        a->numRegs = s.resources.registers;
        a->maxThreadsPerBlock = int(f.max_threads);
        while (a->maxThreadsPerBlock > 32 && registers_of_block(a->numRegs, a->maxThreadsPerBlock) > 65536)
            a->maxThreadsPerBlock -= 32;
        a->ptxVersion = a->binaryVersion = r.options.arch;
        a->maxDynamicSharedSizeBytes =
            s.max_dynamic_shared ? *s.max_dynamic_shared : 49152 - int(f.static_shared);
        a->preferredShmemCarveout = -1;
        a->requiredClusterWidth = int(f.cluster.x);
        a->requiredClusterHeight = int(f.cluster.y);
        a->requiredClusterDepth = int(f.cluster.z);
        a->clusterDimMustBeSet = f.cluster.x != 0;
    });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* stub, int threads,
                                                                   size_t shared, unsigned) {
    return call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&](Runtime& r) {
        const CUkern_st::State& s = r.state(*r.kernel(stub), Runtime::current_device());
        if (threads < 1) refuse(cudaErrorInvalidValue, "a block of %d threads", threads);
        *blocks = blocks_per_multiprocessor(r.options.arch, s, dim3(unsigned(threads)), shared);
    });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* stub, int threads,
                                                          size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, stub, threads, shared, 0);
}

} // extern "C"
