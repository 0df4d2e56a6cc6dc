#include "tools/vgpu/cudart/runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "tools/vgpu/vgpu.h"

namespace vgpu::cuda {

namespace {

std::string format(const char* f, va_list args) {
    char text[1024];
    std::vsnprintf(text, sizeof text, f, args);
    return text;
}

uint64_t number_from(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    if (!text || !*text) return otherwise;
    char* end = nullptr;
    uint64_t n = std::strtoull(text, &end, 0);
    if (*end == 'G' || *end == 'M') n <<= *end == 'G' ? 30 : 20, end++;
    if (*end) {
        std::fprintf(stderr, "vgpu: %s=%s is not a number (1G and 512M are)\n", name, text);
        std::exit(2);
    }
    return n;
}

// Registered when the first kernel is, so before the program's own destructors are: it runs after them.
void at_exit() {
    Runtime& r = runtime();
    {
        std::unique_lock lock(r.queue.mutex);
        try {
            r.queue.wait_all();
        } catch (const Error& e) {
            r.finding(Fault::deadlock, "exit", e.what());
        }
        if (r.options.leaks) r.report_leaks();
    }
    if (const std::string& file = r.options.traffic; !file.empty()) {
        std::FILE* f = std::fopen(file.c_str(), "w");
        if (!f)
            std::fprintf(stderr, "vgpu: cannot write %s\n", file.c_str());
        else
            std::fputs(traffic_json(true).c_str(), f), std::fclose(f);
    }
    size_t found = print_findings();
    std::fflush(nullptr);
    if (found) std::_Exit(99);
}

} // namespace

void refuse(cudaError_t status, const char* f, ...) {
    va_list args;
    va_start(args, f);
    Refusal refusal{status, format(f, args)};
    va_end(args);
    throw refusal;
}

void refuse_quietly(cudaError_t status, const char* f, ...) {
    va_list args;
    va_start(args, f);
    Refusal refusal{status, format(f, args), false};
    va_end(args);
    throw refusal;
}

} // namespace vgpu::cuda

vgpu::Options vgpu::Options::from_environment() {
    using vgpu::cuda::number_from;
    Options o;
    o.arch = int(number_from("VGPU_ARCH", 80));
    o.devices = int(number_from("VGPU_DEVICES", 1));
    o.workers = int(number_from("VGPU_WORKERS", 0));
    o.seed = number_from("VGPU_SEED", 0);
    o.memory = number_from("VGPU_MEMORY", o.memory);
    o.check = number_from("VGPU_CHECK", 1) != 0;
    o.leaks = number_from("VGPU_LEAKS", 0) != 0;
    o.l2 = number_from("VGPU_L2", 0) != 0;
    if (const char* file = std::getenv("VGPU_TRAFFIC")) o.traffic = file;
    o.count = number_from("VGPU_COUNT", 0) != 0 || !o.traffic.empty();
    o.permute = number_from("VGPU_PERMUTE", 0) != 0;
    o.verbose = number_from("VGPU_VERBOSE", 0) != 0;
    if (o.arch != 80 && o.arch != 90 && o.arch != 100) {
        std::fprintf(stderr, "vgpu: VGPU_ARCH=%d: there are 80, 90 and 100\n", o.arch);
        std::exit(2);
    }
    return o;
}

namespace vgpu::cuda {

// Never destroyed: static destructors of the program still free their memory.
Runtime& runtime() {
    static Runtime& r = *new Runtime;
    return r;
}

Runtime::Runtime() {
    queue.failed = [this](Op& op, const char* why) {
        finding(Fault::api, op.work.what, why);
        device(op.work.device).sticky = cudaErrorLaunchFailure;
    };
    queue.before_run = [this](Op& op) {
        if (!options.check) return;
        for (const Range& range : op.work.touches) {
            DeviceMemory* m = DeviceMemory::of(range.address);
            if (m && m->valid(range.address, range.bytes))
                clocks.of(m->device()).touch(op.work.operation, *m, range.address, range.bytes, range.write);
        }
    };
    reset(Options::from_environment());
    std::atexit(at_exit);
}

void Runtime::reset(const Options& o) {
    options = o;
    queue.clear();
    devices.clear();
    clocks.restart(o.devices, lanes_);
    queue.seed(o.seed);
    for (int i = 0; i < o.devices; i++) {
        auto d = std::make_unique<Device>();
        d->number = i;
        d->memory = std::make_unique<DeviceMemory>(
            DeviceMemory::Options{.device = i, .limit = o.memory, .checked = o.check});
        d->legacy.device = i, d->legacy.legacy = true, d->legacy.lane = new_lane();
        devices.push_back(std::move(d));
    }
    for (auto& b : binaries) {
        b->loaded.clear();
        for (auto& k : b->kernels) k->states.clear();
    }
    for (auto& [address, bytes] : pinned) remove_host_range(address);
    pinned.clear(), captures.clear(), events.clear(), launches.clear(), why.clear();
    current_device() = 0;
    last_error() = cudaSuccess;
}

int& Runtime::current_device() {
    thread_local int number = 0;
    return number;
}

cudaError_t& Runtime::last_error() {
    thread_local cudaError_t status = cudaSuccess;
    return status;
}

Device& Runtime::device(int number) {
    if (number < 0 || number >= int(devices.size()))
        refuse(cudaErrorInvalidDevice, "there is no device %d (VGPU_DEVICES=%zu)", number, devices.size());
    return *devices[size_t(number)];
}

Device* Runtime::owner(uint64_t address) {
    for (auto& d : devices)
        if (d->memory->contains(address)) return d.get();
    return nullptr;
}

bool Runtime::is_pinned(const void* p, size_t bytes) const {
    auto address = reinterpret_cast<uintptr_t>(p);
    auto it = pinned.upper_bound(address);
    return it != pinned.begin() && address + bytes <= std::prev(it)->first + std::prev(it)->second;
}

uint32_t Runtime::new_lane() {
    clocks.add_stream();
    return ++lanes_;
}

CUstream_st* Runtime::new_stream(int number, bool blocking, int priority) {
    auto s = std::make_unique<CUstream_st>();
    s->device = number, s->blocking = blocking, s->priority = priority, s->lane = new_lane();
    device(number).streams.push_back(std::move(s));
    return device(number).streams.back().get();
}

CUstream_st* Runtime::stream(cudaStream_t handle) {
    if (handle == nullptr || handle == cudaStreamLegacy) return &current().legacy;
    if (handle == cudaStreamPerThread) {
        CUstream_st*& s = current().per_thread[std::this_thread::get_id()];
        return s ? s : s = new_stream(current_device(), true, 0);
    }
    for (auto& d : devices)
        for (auto& s : d->streams)
            if (s.get() == handle) {
                if (!s->alive) refuse(cudaErrorInvalidResourceHandle, "the stream was destroyed before");
                return handle;
            }
    refuse(cudaErrorInvalidResourceHandle, "%p is no stream", static_cast<void*>(handle));
}

CUevent_st* Runtime::event(cudaEvent_t handle) {
    for (auto& e : events)
        if (e.get() == handle) {
            if (!e->alive) refuse(cudaErrorInvalidResourceHandle, "the event was destroyed before");
            return handle;
        }
    refuse(cudaErrorInvalidResourceHandle, "%p is no event", static_cast<void*>(handle));
}

// The legacy stream waits for the blocking streams of its device, and they wait for it.
std::vector<OpRef> Runtime::edges(CUstream_st* stream) {
    std::vector<OpRef> after = std::move(stream->gates);
    stream->gates.clear();
    after.push_back(stream->last);
    Device& d = device(stream->device);
    if (stream->legacy) {
        for (auto& s : d.streams)
            if (s->blocking) {
                clocks.wait_lane(stream->lane, s->lane);
                after.push_back(s->last);
                after.insert(after.end(), s->gates.begin(), s->gates.end());
            }
    } else if (stream->blocking) {
        clocks.wait_lane(stream->lane, d.legacy.lane);
        after.push_back(d.legacy.last);
    }
    return after;
}

void Runtime::enqueue(CUstream_st* stream, Work work) {
    work.device = stream->device;
    if (Capture* c = stream->capture) {
        if (c->broken) refuse(cudaErrorStreamCaptureInvalidated, "the capture was broken by an earlier call");
        auto node = std::make_unique<CUgraphNode_st>();
        node->work = std::move(work);
        node->after = stream->frontier;
        node->index = int(c->graph->nodes.size());
        stream->frontier = {node.get()};
        c->graph->nodes.push_back(std::move(node));
        return;
    }
    if (stream->legacy)
        for (auto& c : captures)
            for (CUstream_st* s : c->streams)
                if (s->blocking && s->device == stream->device) {
                    c->broken = true;
                    refuse(cudaErrorStreamCaptureImplicit,
                           "the legacy stream waits for a stream that is being captured");
                }
    if (work.bind) work = work.bind();
    std::vector<OpRef> after = edges(stream);
    stream->last = submit(std::move(work), stream->lane, std::move(after));
}

OpRef Runtime::submit(Work work, uint32_t lane, std::vector<OpRef> after) {
    work.operation = clocks.operation(lane, work.what);
    return queue.submit(std::move(work), lane, std::move(after));
}

void Runtime::synchronize(CUstream_st* stream) {
    if (stream->capture) {
        stream->capture->broken = true;
        refuse(cudaErrorStreamCaptureUnsupported,
               "the stream is being captured, so there is nothing to wait for");
    }
    not_while_capturing("a synchronisation");
    std::vector<OpRef> all = stream->gates;
    all.push_back(stream->last);
    if (stream->legacy) all = edges(stream);
    queue.wait(all);
    clocks.host_waits_lane(stream->lane);
}

void Runtime::synchronize_device(int number) {
    not_while_capturing("a synchronisation");
    Device& d = device(number);
    std::vector<OpRef> all{d.legacy.last};
    for (auto& s : d.streams) {
        all.push_back(s->last);
        all.insert(all.end(), s->gates.begin(), s->gates.end());
    }
    queue.wait(all);
    clocks.host_waits_lane(d.legacy.lane);
    for (auto& s : d.streams) clocks.host_waits_lane(s->lane);
}

void Runtime::not_while_capturing(const char* what) {
    for (auto& c : captures) {
        bool mine = c->thread == std::this_thread::get_id();
        if (c->mode == cudaStreamCaptureModeRelaxed || (c->mode == cudaStreamCaptureModeThreadLocal && !mine))
            continue;
        c->broken = true;
        refuse(cudaErrorStreamCaptureUnsupported, "%s is not allowed while a stream is being captured", what);
    }
}

cudaError_t Runtime::failed(const char* name, const Refusal& e) {
    last_error() = e.status;
    why = e.why;
    if (e.finding) finding(Fault::api, name, e.why);
    if (options.verbose)
        std::fprintf(stderr, "vgpu: %s: %s: %s\n", name, cudaGetErrorName(e.status), e.why.c_str());
    return e.status;
}

void Runtime::finding(Fault fault, const std::string& where, const std::string& what) {
    Finding f;
    f.fault = fault, f.kernel = where, f.what = what;
    report(f);
}

int Runtime::workers() const {
    if (options.workers > 0) return options.workers;
    unsigned n = std::thread::hardware_concurrency();
    return n ? int(n) : 1;
}

} // namespace vgpu::cuda
