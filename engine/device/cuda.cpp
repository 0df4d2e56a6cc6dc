// The CUDA backend: one device, one stream, staging memory for copies, graphs. Linked into programs that have
// CUDA; registers itself.
#include "engine/device/cuda.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/base/text.h"
#include "engine/device/device.h"

namespace nvl {

void cuda_check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError(); // forget it: the next call has its own story
    fail("cuda: %s: %s (%s)", what, cudaGetErrorString(status), cudaGetErrorName(status));
}
void check_launch(const char* kernel) { cuda_check(cudaGetLastError(), kernel); }

namespace {

constexpr size_t STAGE = 4 << 20; // bytes of one piece of a copy through page-locked memory
constexpr size_t ALIGN = 256;

struct Stream {
    cudaStream_t stream = nullptr;
    Stream() { cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream"); }
    ~Stream() { cudaStreamDestroy(stream); }
    Stream(const Stream&) = delete;
};

// A piece of page-locked memory and the moment from which it may be used again.
struct Stage {
    void* data = nullptr;
    cudaEvent_t done = nullptr;
    Stage() {
        cuda_check(cudaMallocHost(&data, STAGE), "page-locked memory");
        cuda_check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "an event");
    }
    ~Stage() { cudaEventDestroy(done), cudaFreeHost(data); }
    Stage(const Stage&) = delete;
};

class CudaGraph : public DeviceGraph {
public:
    CudaGraph(cudaStream_t stream, cudaGraph_t graph) : stream_(stream) {
        cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
        cudaGraphDestroy(graph);
        cuda_check(status, "instantiating a graph");
    }
    ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
    void replay() override { cuda_check(cudaGraphLaunch(executable_, stream_), "launching a graph"); }

private:
    cudaStream_t stream_;
    cudaGraphExec_t executable_ = nullptr;
};

class CudaBackend : public DeviceBackend {
public:
    CudaBackend() {
        cuda_check(cudaGetDeviceProperties(&properties, 0), "the properties of device 0");
        cuda_check(cudaMalloc(reinterpret_cast<void**>(&nothing_), ALIGN), "device memory");
    }
    ~CudaBackend() override { cudaFree(nothing_); }

    std::string description() const override {
        return format("%s, %s, %d multiprocessors", properties.name,
                      human(double(properties.totalGlobalMem), "B").c_str(), properties.multiProcessorCount);
    }
    // Dense tensor cores (bf16) and plain f32 units: operations a cycle of one multiprocessor, times the
    // clock.
    double peak_flops(bool bf16) const override {
        int kilohertz = 0, generation = properties.major;
        cuda_check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0), "the clock rate");
        double tensor = generation >= 10 ? 8192 : generation == 9 ? 4096 : 2048;
        double plain = generation == 8 && properties.minor == 0 ? 128 : 256;
        return (bf16 ? tensor : plain) * properties.multiProcessorCount * kilohertz * 1e3;
    }
    std::byte* allocate(size_t bytes) override {
        if (!bytes) return nothing_; // an address, which is what tells an empty tensor from none
        void* data = nullptr;
        cudaError_t status = cudaMalloc(&data, bytes);
        if (status == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            return nullptr;
        }
        cuda_check(status, "device memory");
        return static_cast<std::byte*>(data);
    }
    void release(std::byte* data) noexcept override {
        if (data != nothing_) cudaFree(data);
    }
    size_t free_bytes() const override {
        size_t free = 0, total = 0;
        cuda_check(cudaMemGetInfo(&free, &total), "the free memory");
        return free;
    }

    void upload(std::byte* to, const void* from, size_t bytes) override {
        for (size_t at = 0; at < bytes; at += STAGE) {
            size_t n = std::min(STAGE, bytes - at);
            Stage& s = next_stage();
            std::memcpy(s.data, static_cast<const std::byte*>(from) + at, n);
            cuda_check(cudaMemcpyAsync(to + at, s.data, n, cudaMemcpyHostToDevice, stream()), "upload");
            cuda_check(cudaEventRecord(s.done, stream()), "upload");
        }
    }
    void download(void* to, const std::byte* from, size_t bytes) override {
        size_t pending = 0; // bytes of the piece before, which is on its way
        Stage* before = nullptr;
        auto finish = [&](size_t at) {
            cuda_check(cudaEventSynchronize(before->done), "download");
            std::memcpy(static_cast<std::byte*>(to) + at - pending, before->data, pending);
        };
        for (size_t at = 0; at < bytes; at += STAGE) {
            size_t n = std::min(STAGE, bytes - at);
            Stage& s = next_stage();
            cuda_check(cudaMemcpyAsync(s.data, from + at, n, cudaMemcpyDeviceToHost, stream()), "download");
            cuda_check(cudaEventRecord(s.done, stream()), "download");
            if (before) finish(at);
            before = &s, pending = n;
        }
        if (before) finish(bytes);
    }
    void copy(std::byte* to, const std::byte* from, size_t bytes) override {
        cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()), "copy");
    }
    void fill(std::byte* to, uint8_t value, size_t bytes) override {
        if (bytes) cuda_check(cudaMemsetAsync(to, value, bytes, stream()), "fill");
    }
    void synchronize() override { cuda_check(cudaStreamSynchronize(stream()), "waiting for the device"); }

    void workspace(std::byte* data, int64_t bytes) override {
        workspace_data = data, workspace_bytes = bytes, workspace_used = 0;
    }
    std::unique_ptr<DeviceGraph> capture(const std::function<void()>& launches) override {
        cudaGraph_t graph = nullptr;
        // Relaxed: a library that creates itself at its first use may do so while we record.
        cuda_check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "capture");
        try {
            launches();
        } catch (...) {
            cudaStreamEndCapture(stream(), &graph);
            if (graph) cudaGraphDestroy(graph);
            cudaGetLastError();
            throw;
        }
        cuda_check(cudaStreamEndCapture(stream(), &graph), "the end of a capture");
        return std::make_unique<CudaGraph>(stream(), graph);
    }

    cudaStream_t stream() const { return stream_.stream; }
    cudaDeviceProp properties{};
    // Of the step that runs now, on this thread.
    static thread_local std::byte* workspace_data;
    static thread_local int64_t workspace_bytes, workspace_used;

private:
    Stage& next_stage() {
        Stage& s = stages_[turn_++ % stages_.size()];
        cuda_check(cudaEventSynchronize(s.done), "waiting for a copy");
        return s;
    }
    Stream stream_;
    std::array<Stage, 2> stages_;
    size_t turn_ = 0;
    std::byte* nothing_ = nullptr;
};
thread_local std::byte* CudaBackend::workspace_data = nullptr;
thread_local int64_t CudaBackend::workspace_bytes = 0;
thread_local int64_t CudaBackend::workspace_used = 0;

std::unique_ptr<DeviceBackend> open_cuda() {
    int devices = 0;
    cudaError_t status = cudaGetDeviceCount(&devices);
    check(status == cudaSuccess && devices > 0,
          "--device cuda: no usable GPU: %s; use --device cpu, or build/bin/vgpu/NAME, which executes the "
          "kernels on the CPU",
          status == cudaSuccess ? "the driver lists none" : cudaGetErrorString(status));
    cuda_check(cudaSetDevice(0), "choosing device 0");
    return std::make_unique<CudaBackend>();
}
const RegisterDevice registered(Device::cuda, open_cuda);

CudaBackend& backend() { return static_cast<CudaBackend&>(backend_of(Device::cuda)); }

} // namespace

cudaStream_t cuda_stream() { return backend().stream(); }
int multiprocessors() { return backend().properties.multiProcessorCount; }

std::byte* cuda_workspace(int64_t bytes) {
    constexpr auto align = int64_t(ALIGN);
    int64_t at = CudaBackend::workspace_used;
    check(at + bytes <= CudaBackend::workspace_bytes,
          "a kernel asks for %ld bytes of workspace after %ld, its workspace function declared %ld", bytes,
          at, CudaBackend::workspace_bytes);
    CudaBackend::workspace_used = (at + bytes + align - 1) / align * align;
    return CudaBackend::workspace_data + at;
}

} // namespace nvl
