// What the checkers found: one line each, merged by kernel, source line and kind.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tools/vgpu/machine/observer.h"

namespace vgpu {

enum class Fault : uint8_t {
    race_shared,
    race_global,
    race_streams,
    out_of_bounds,
    misaligned,
    uninitialised,
    use_after_free,
    copy_not_waited,   // cp.async data used, or left at exit, without a wait
    barrier_divergent, // threads of a block wait at different barriers
    barrier_exited,    // some threads have left the kernel
    inactive_lane,     // shuffle or vote with a lane that is not there
    host_access,       // the host dereferenced device memory
    leak,
    launch_limit,
    deadlock,
    trap, // the kernel stopped itself, or an assertion of it failed
    api   // a call that the real library would refuse or leave undefined
};
const char* name_of(Fault);

struct Finding {
    Fault fault;
    std::string kernel, source;
    uint32_t ptx_line = 0;
    Dim3 block{}, thread{};
    std::string what; // one line: what was expected, what was found
    int64_t times = 1;
};

/// Adds a finding (any thread may); equal ones by fault, kernel, PTX line are counted, not repeated.
void report(Finding);
std::vector<Finding> findings();
void clear_findings();
/// "RACE_SHARED in gemm at gemm.cu:58 (ptx 112), block (0,0,0) thread (3,0,0): ... (412 times)"
std::string text_of(const Finding&);
/// The name of a kernel as it was written, with template arguments, without parameters.
std::string readable(const std::string& mangled);
/// All of them to stderr, a line each; how many there were.
size_t print_findings();

} // namespace vgpu
