// What a test or tool may ask of the virtual GPU that its program runs on. Programs need none of this: they
// call CUDA, cuBLASLt and NCCL.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tools/vgpu/count/traffic.h" // traffic_of(name): what kernels moved, with Options::count
#include "tools/vgpu/machine/launch.h"
#include "tools/vgpu/report.h"

namespace vgpu {

/// At start-up from the environment: VGPU_ARCH, VGPU_SEED, ... (README.md).
struct Options {
    int arch = 80; // 80 (A100), 90 (H100), 100 (B200)
    int devices = 1;
    int workers = 0;                 // threads that run blocks; 0: one per core
    uint64_t seed = 0;               // order of streams, warps, blocks, ranks; 0: the plain one
    size_t memory = size_t(4) << 30; // of a device
    bool check = true;               // races, bounds, initialisation, ...
    bool count = false;              // traffic and instructions of kernels
    bool l2 = false;                 // with count: a model of the L2 cache too
    std::string traffic;             // count, and write traffic_json to this file at exit
    bool leaks = false;              // at exit, memory that was not freed is a finding
    bool permute = false;            // NCCL adds the ranks in an order drawn from the seed, not 0, 1, 2, ...
    bool verbose = false;            // refused calls are printed when they happen
    Numerics numerics = Numerics::sequential;
    static Options from_environment();
};
const Options& options();

/// As if the process had just started: memory, streams, events and graphs of all devices are gone, and so are
/// findings and counts. Handles from before must not be used.
void reset(const Options&);
void set_seed(uint64_t);
void set_check(bool);
void set_count(bool);

/// Runs everything that is pending.
void finish();
/// Launches so far of kernels whose (mangled) name contains `part`.
uint64_t launches(std::string_view part = "");
/// Why the last refused call was refused: more than cudaGetErrorString can say.
std::string last_refusal();
/// Adds a finding for each allocation that is still there.
void report_leaks();

} // namespace vgpu
