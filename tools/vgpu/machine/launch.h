// Runs a kernel to its end.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tools/vgpu/machine/module.h"
#include "tools/vgpu/machine/observer.h"

namespace vgpu {

/// How tensor cores add: real ones differ by generation, so results must be acceptable under each.
enum class Numerics : uint8_t {
    sequential, // f32, one k after the other, rounded each time
    exact,      // the dot product exactly, then rounded once
    truncate    // the dot product exactly, then rounded towards zero
};

struct Launch {
    const Function* function = nullptr;
    Dim3 grid, block, cluster;
    uint32_t dynamic_shared = 0;
    std::vector<std::byte> parameters; // function->parameter_bytes of them
    Observer* observer = nullptr;      // null: fast mode, nothing is checked but shared memory's bounds
    /// 0: lowest pc first, warps run until they wait, blocks in order. Others choose at random (but
    /// repeatably for a block) among groups of diverged lanes, warps, lengths of a turn, and blocks.
    uint64_t seed = 0;
    int workers = 1;
    bool cooperative = false; // all blocks are resident at once, so they may wait for each other
    Numerics numerics = Numerics::sequential;
    uint64_t limit = 0; // thread instructions of one block after which it counts as hanging; 0: none
};

struct LaunchCounts {
    uint64_t thread_instructions = 0, warp_instructions = 0;
};

/// Blocks until the kernel has ended. Global addresses are host addresses; the caller sees to it that they
/// are accessible. Wrong sizes (too many threads, parameters of another size) throw an Error; what the kernel
/// itself does wrong is reported as findings.
LaunchCounts run(const Launch&);

/// Where the windows of generic addresses begin; everything below is global.
constexpr uint64_t SHARED_WINDOW = 1ull << 56, LOCAL_WINDOW = 2ull << 56, PARAMETER_WINDOW = 3ull << 56;

} // namespace vgpu
