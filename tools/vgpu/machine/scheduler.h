// Runs the warps of a block by turns. Lanes of a warp that have parted run as groups: the group with the
// lowest place in the code first, so that they meet again; or, with a seed, any.
#pragma once
#include <cstdlib>
#include <memory>
#include <vector>

#include "tools/vgpu/machine/warp.h"

namespace vgpu {

class BlockRunner {
public:
    explicit BlockRunner(const Launch&);
    BlockRunner(const BlockRunner&) = delete;

    /// Sets everything up for a block of the grid.
    void start(uint64_t number);
    /// One turn of one warp. False: the block has ended.
    bool step();
    void finish();

    Block block;

private:
    const Launch& launch;
    const Code& code;
    struct Freed {
        void operator()(std::byte* p) const { std::free(p); }
    };
    std::unique_ptr<std::byte, Freed> storage; // all register files, then local memory, then shared memory
    uint32_t next_warp = 0;
    uint64_t last_progress = 0, vain_polls = 0;

    void fill_constants();
    void fill_specials(bool of_block);
    uint64_t special(Special, const Warp&, uint32_t lane) const;

    int choose_group(Warp&);
    void run_warp(Warp&, int64_t budget);
    void run_group(Warp&, Group, int64_t& budget);
    uint32_t absorb(Warp&, Group& now);
    bool gather(Warp&, const Op&, Group& now, uint32_t mask);
    void put_back(Warp& w, const Group& g) { w.groups[w.group_count++] = g; }
    bool wants_other(const Warp&, const Group& now);
    void indexed_branch(Warp&, const Op&, const Group& now, uint32_t mask);
    void exit_lanes(Warp&, const Op&, uint32_t mask);

    bool polls_in_vain(Warp&);

    // Barriers (barrier.cpp)
    bool arrive(Warp&, const Op&, const Group& now, uint32_t mask);
    void release(uint32_t id);
    bool stuck();
    bool stuck_collectives();
    bool stuck_barriers();
    std::string who_waits_where() const;
};

} // namespace vgpu
