// mbarrier objects: 8 bytes of shared memory, whose content is ours, and copies that report to them.
#pragma once
#include "tools/vgpu/machine/warp.h"

namespace vgpu {

struct Mbarrier {
    uint64_t pending : 20;  // arrivals that this phase still waits for
    uint64_t expected : 20; // arrivals of each phase
    int64_t bytes : 22;     // of copies that this phase still waits for
    uint64_t valid : 1;
    uint64_t phase : 1; // completed phases, odd or even
};
static_assert(sizeof(Mbarrier) == 8);

/// The mbarrier at an address of shared memory (perhaps of another block of the cluster), or null after a
/// finding.
Mbarrier* mbarrier_at(Warp&, const Op&, uint32_t lane, uint64_t address, Block** block,
                      bool has_to_be_valid = true);
void arrive_at(Block&, Mbarrier&, uint32_t arrivals, int64_t bytes);
/// Writes what the mbarrier at `offset` of the block waits for.
void land_bulk(Block&, uint32_t offset);

} // namespace vgpu
