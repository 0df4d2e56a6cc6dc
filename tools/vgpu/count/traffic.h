// What kernels moved and did, by kernel and by source line. Numbers are sums over launches.
//
//   requested   bytes that lanes asked for
//   sectors     distinct 32-byte pieces of each warp instruction: what L1 asks L2 for, if it never hits
//   unique      distinct sectors of a launch: what DRAM must move at least
//   wavefronts  passes of shared memory: 32 banks of 4 bytes; 8-byte accesses go by half warps, 16-byte ones
//   by
//               quarters; lanes that read one word share it. ideal: max(1, ceil(bytes / 128))
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tools/vgpu/count/l2.h"

namespace vgpu {

struct Direction {
    uint64_t requested = 0, sectors = 0, unique = 0; // bytes, sectors, sectors
    double sectors_per_requested() const { return requested ? 32. * sectors / requested : 0; }
    Direction& operator+=(const Direction&);
};

struct Counts {            // of a kernel, or of one source line
    Direction read, write; // atomics count as writes
    uint64_t shared_bytes = 0, wavefronts = 0, ideal = 0;
    uint64_t local_bytes = 0; // stack and spills
    uint64_t warp_instructions = 0, thread_instructions = 0;
    uint64_t loads = 0, stores = 0, tensor = 0, special = 0, shuffle = 0; // warp instructions
    uint64_t atomics = 0;                                                 // of lanes, global memory
    double bank_ratio() const { return ideal ? double(wavefronts) / ideal : 1; }
    Counts& operator+=(const Counts&);
};

struct LineCounts : Counts {
    std::string source;
    uint32_t ptx_line = 0;
};

struct Traffic : Counts {
    std::string kernel; // mangled
    uint64_t launches = 0;
    L2::Counts l2;                 // all zero without an L2 model
    std::vector<LineCounts> lines; // by PTX line
};

/// By kernel, in the order of their first launch.
std::vector<Traffic> traffic();
/// The sum over kernels whose mangled name contains `part`.
Traffic traffic_of(std::string_view part);
void clear_traffic();
void add_traffic(Traffic);
/// [{"kernel": ..., "launches": ..., "read": {...}, ...}, ...]; with `lines`, each kernel's source lines too.
std::string traffic_json(bool lines = false);

} // namespace vgpu
