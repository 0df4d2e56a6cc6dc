// What the CUDA look-alike keeps: devices, streams, loaded device code, host memory it knows, the last error.
#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/vgpu/count/l2.h"
#include "tools/vgpu/cudart/clocks.h"
#include "tools/vgpu/cudart/fatbin.h"
#include "tools/vgpu/cudart/queue.h"
#include "tools/vgpu/machine/launch.h"
#include "tools/vgpu/memory/device_memory.h"
#include "tools/vgpu/report.h"
#include "tools/vgpu/vgpu.h"

namespace vgpu::cuda {
struct Capture;
struct Binary;
} // namespace vgpu::cuda

struct CUstream_st {
    int device = 0;
    bool legacy = false, blocking = true, alive = true;
    int priority = 0;
    uint32_t lane = 0;
    vgpu::cuda::OpRef last;               // the newest op of the stream
    std::vector<vgpu::cuda::OpRef> gates; // waited for by the next op (cudaStreamWaitEvent)
    vgpu::cuda::Capture* capture = nullptr;
    std::vector<CUgraphNode_st*> frontier; // while it captures: what the next node comes after
};

struct CUevent_st {
    int device = 0;
    unsigned flags = 0;
    bool alive = true;
    vgpu::cuda::OpRef op; // the last record
    vgpu::cuda::Capture* capture = nullptr;
    std::vector<CUgraphNode_st*> nodes; // the record, when it was captured
};

/// A kernel as the host knows it.
struct CUkern_st {
    vgpu::cuda::Binary* binary = nullptr;
    std::string name; // mangled
    struct State {    // of one device
        const vgpu::Function* function = nullptr;
        vgpu::cuda::Resources resources;
        std::optional<int> max_dynamic_shared;
        bool non_portable_cluster = false;
    };
    std::map<int, State> states;
};

struct CUgraphNode_st {
    vgpu::cuda::Work work;
    std::vector<CUgraphNode_st*> after;
    int index = 0;
};
struct CUgraph_st {
    std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
    bool alive = true;
};
struct CUgraphExec_st {
    struct Node {
        vgpu::cuda::Work work;
        std::vector<int> after;
    };
    std::vector<Node> nodes;
    std::vector<uint32_t> lanes; // of the nodes
    bool alive = true;
    vgpu::cuda::OpRef last; // launches of one graph run one after the other
};

namespace vgpu::cuda {

/// Streams that record into one graph.
struct Capture {
    CUgraph_st* graph;
    CUstream_st* origin;
    std::vector<CUstream_st*> streams;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool broken = false; // a call that cannot be captured happened
    unsigned long long id = 0;
};

/// One fat binary: one .cu file.
struct Binary {
    std::vector<Image> images;
    std::vector<std::unique_ptr<CUkern_st>> kernels;
    struct Variable {
        const void* host;
        std::string name;
        size_t bytes;
    };
    std::vector<Variable> variables;
    struct Loaded {
        std::shared_ptr<const Module> module; // null: refusal says why
        cudaError_t status = cudaSuccess;
        std::string refusal;
        std::map<std::string, Resources> resources;
    };
    std::map<int, Loaded> loaded; // by device
};

struct Device {
    int number = 0;
    std::unique_ptr<DeviceMemory> memory;
    CUstream_st legacy;
    std::vector<std::unique_ptr<CUstream_st>> streams; // destroyed ones too: a handle is never used twice
    std::map<std::thread::id, CUstream_st*> per_thread;
    cudaError_t sticky = cudaSuccess; // an op failed: every later call says so
    std::unique_ptr<L2> l2;           // with Options::l2
    std::set<uint64_t> variables;     // addresses of module variables: no leaks
};

/// Thrown inside a call: what the caller gets, and why.
struct Refusal {
    cudaError_t status;
    std::string why;
    bool finding = true; // false: a state that programs ask for in good faith (not ready, out of memory)
};
[[noreturn]] void refuse(cudaError_t status, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void refuse_quietly(cudaError_t status, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

class Runtime {
public:
    Options options;
    Queue queue;
    Clocks clocks;
    std::vector<std::unique_ptr<Device>> devices;
    std::vector<std::unique_ptr<Binary>> binaries;
    std::map<const void*, CUkern_st*> kernels;                   // by host stub
    std::map<const void*, std::pair<Binary*, size_t>> variables; // by host shadow
    std::map<uintptr_t, size_t> pinned;                          // host memory that copies read late
    std::vector<std::unique_ptr<CUevent_st>> events;
    std::vector<std::unique_ptr<Capture>> captures; // running ones
    std::map<std::string, uint64_t> launches;       // by kernel
    std::string why;                                // of the last refused call

    Runtime();
    void reset(const Options&);
    Device& device(int number);
    Device& current() { return device(current_device()); }
    static int& current_device();
    static cudaError_t& last_error();

    /// Null, the legacy handle, the per-thread handle, or a stream of the program; anything else is refused.
    CUstream_st* stream(cudaStream_t handle);
    CUevent_st* event(cudaEvent_t handle);
    uint32_t new_lane();
    CUstream_st* new_stream(int device, bool blocking, int priority);

    /// Puts work at the end of a stream, or into the graph that the stream records.
    void enqueue(CUstream_st* stream, Work work);
    /// What enqueue ends in: an op of a lane behind others whose clocks the lane has joined already.
    OpRef submit(Work work, uint32_t lane, std::vector<OpRef> after);
    void synchronize(CUstream_st* stream);
    void synchronize_device(int device);
    /// Refuses calls that may not happen while a stream captures (allocations, synchronisation).
    void not_while_capturing(const char* call);

    Binary::Loaded& load(Binary&, int device);
    CUkern_st::State& state(CUkern_st&, int device);
    CUkern_st* kernel(const void* stub);
    const Variable& variable(const void* shadow);

    /// The device that owns an address, or null for host memory.
    Device* owner(uint64_t address);
    bool is_pinned(const void* p, size_t bytes) const;

    cudaError_t failed(const char* call, const Refusal&);
    void run_kernel(Op&, Launch&);
    void report_leaks();
    void finding(Fault, const std::string& where, const std::string& what);
    int workers() const;

private:
    uint32_t lanes_ = 0;
    std::vector<OpRef> edges(CUstream_st* stream);
};
Runtime& runtime();

/// Every public function is one of these: locks, runs, and turns a refusal into a status and a finding.
template <class F> cudaError_t call(const char* name, F body) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    try {
        if (cudaError_t sticky = r.current().sticky; sticky != cudaSuccess)
            throw Refusal{sticky, "an earlier kernel or copy failed", false};
        body(r);
        if (cudaError_t sticky = r.current().sticky; sticky != cudaSuccess)
            throw Refusal{sticky, "a kernel or copy failed", false};
        return cudaSuccess;
    } catch (const Refusal& e) {
        return r.failed(name, e);
    } catch (const Deadlock& e) {
        r.finding(Fault::deadlock, name, e.what());
        return r.failed(name, {cudaErrorLaunchTimeout, e.what(), false});
    } catch (const Error& e) {
        return r.failed(name, {cudaErrorLaunchFailure, e.what()});
    }
}

} // namespace vgpu::cuda
