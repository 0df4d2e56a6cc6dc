// vgpu.h, and the run of one kernel under its observers.
#include <deque>
#include <optional>

#include "tools/vgpu/count/counter.h"
#include "tools/vgpu/cudart/devices.h"
#include "tools/vgpu/cudart/runtime.h"
#include "tools/vgpu/memory/checker.h"

namespace vgpu::cuda {

void Runtime::run_kernel(Op& op, Launch& l) {
    launches[l.function->name]++;
    l.workers = workers();
    l.seed = options.seed ? options.seed * 0x9e3779b97f4a7c15 + op.number : 0;
    l.numerics = options.numerics;
    DeviceMemory& memory = *device(op.work.device).memory;
    std::deque<Unlocked> unlocked; // of peers too
    for (auto& d : devices) unlocked.emplace_back(*d->memory);
    std::optional<Checker> checker;
    std::optional<Counter> counter;
    std::optional<Both> both;
    if (options.check) l.observer = &checker.emplace(memory, &clocks.of(op.work.device), op.work.operation);
    if (options.count) {
        auto& cache = device(op.work.device).l2;
        if (options.l2 && !cache) {
            L2::Options size;
            size.bytes = uint64_t(model_of(options.arch).l2);
            cache = std::make_unique<L2>(size);
        }
        Counter& c = counter.emplace(memory, l.function->name, cache.get());
        l.observer = l.observer ? static_cast<Observer*>(&both.emplace(*l.observer, c)) : &c;
    }
    run(l);
    l.observer = nullptr;
}

void Runtime::report_leaks() {
    for (auto& d : devices)
        for (const Allocation& a : d->memory->live()) {
            if (d->variables.count(a.address)) continue;
            finding(Fault::leak, "device " + std::to_string(d->number),
                    "allocation " + std::to_string(a.number) + " of " + std::to_string(a.bytes) +
                        " bytes was not freed");
        }
}

} // namespace vgpu::cuda

namespace vgpu {

using cuda::Runtime, cuda::runtime;

namespace {
template <class F> auto locked(F f) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    return f(r);
}
} // namespace

const Options& options() { return runtime().options; }

void reset(const Options& o) {
    locked([&](Runtime& r) {
        r.reset(o);
        clear_findings();
        clear_traffic();
    });
}

void set_seed(uint64_t seed) {
    locked([&](Runtime& r) {
        r.options.seed = seed;
        r.queue.seed(seed);
    });
}

void set_check(bool on) {
    locked([&](Runtime& r) { r.options.check = on; });
}

void set_count(bool on) {
    locked([&](Runtime& r) { r.options.count = on; });
}

void finish() {
    locked([](Runtime& r) {
        r.queue.wait_all();
        r.clocks.host_waits_all();
    });
}

uint64_t launches(std::string_view part) {
    return locked([&](Runtime& r) {
        uint64_t n = 0;
        for (auto& [name, times] : r.launches)
            if (name.find(part) != name.npos) n += times;
        return n;
    });
}

std::string last_refusal() {
    return locked([](Runtime& r) { return r.why; });
}

void report_leaks() {
    locked([](Runtime& r) { r.report_leaks(); });
}

} // namespace vgpu
