// What the checker knows of a running block.
#pragma once
#include <vector>

#include "tools/vgpu/memory/cells.h"
#include "tools/vgpu/memory/device_memory.h"
#include "tools/vgpu/memory/order.h"

namespace vgpu {

/// Its clocks, the stamps of its shared memory, copies on their way.
struct CheckedBlock {
    BlockOrder order;
    std::vector<Stamp> word[4], byte[4]; // byte: as long as there was no need, empty
    std::vector<uint64_t> pending;       // a bit per word: a copy is on its way
    uint32_t pending_words = 0;
    const Site* pending_site = nullptr;
    struct Cached {
        uint64_t begin = 0, end = 0;
        DeviceMemory* memory = nullptr;
    };
    std::vector<Cached> cached; // two of each warp: the ranges of its last accesses

    void begin(const BlockId&, Segments*, uint64_t launch);
    void need_bytes() {
        if (byte[0].size() < 4 * word[0].size())
            for (auto& b : byte) b.resize(4 * word[0].size());
    }
    Cells cells() {
        return {{word[0].data(), word[1].data(), word[2].data(), word[3].data()},
                {byte[0].data(), byte[1].data(), byte[2].data(), byte[3].data()}};
    }
    bool is_written(uint64_t offset, uint32_t bytes) const;
};

inline CheckedBlock& checked(BlockId& b) { return *static_cast<CheckedBlock*>(b.data); }
inline CheckedBlock& checked(WarpId& w) { return checked(*w.block); }
inline WarpOrder& order_of(WarpId& w) { return checked(w).order.warps[w.number]; }

} // namespace vgpu
