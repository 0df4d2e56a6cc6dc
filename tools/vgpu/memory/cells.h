// The four stamps of a word (or byte) and the rules by which accesses read and change them.
#pragma once
#include "tools/vgpu/memory/order.h"
#include "tools/vgpu/memory/segments.h"
#include "tools/vgpu/memory/streams.h"

namespace vgpu {

enum Cell { WRITE, READ, READ2, STRONG };
enum class Act : uint8_t { read, write, strong_read, strong_write };

/// Arrays of stamps: of words and of their bytes.
struct Cells {
    Stamp* word[4];
    Stamp* byte[4];
    Cells at(uint64_t n) const { // from the n-th word on
        return {{word[0] + n, word[1] + n, word[2] + n, word[3] + n},
                {byte[0] + 4 * n, byte[1] + 4 * n, byte[2] + 4 * n, byte[3] + 4 * n}};
    }
};

/// A warp that makes an access, and what it may assume of stamps.
struct Actor {
    BlockOrder& block;
    WarpOrder& warp;
    bool global;
    Act act;
    Stamp stamp;                           // of lane 0
    Stamp old;                             // below: ordered before us
    Stamp ordered, ordered_n;              // global: [ordered, ordered + n): of our block, ordered before us
    Stamp own, own_n;                      // global: [own, own + n): of our block
    Stamp together;                        // shared: those of our warp below are ordered before us
    bool acquired;                         // something, from another block
    Stamp first = 0;                       // global: stamps below are of earlier operations ...
    const StreamClocks* streams = nullptr; // ... whose order these know
    uint32_t operation = 0;

    template <bool GLOBAL> bool quiet(Stamp s) const {
        if constexpr (GLOBAL) return (s < old) | (s - ordered < ordered_n);
        return (s < old) | ((((s ^ stamp) & WARP_BITS) == 0) & (s < together));
    }
    bool quiet(Stamp s) const { return global ? quiet<true>(s) : quiet<false>(s); }
    const Segment& segment(Stamp s) const {
        return global ? block.global_segment(s) : block.shared_segment(s);
    }
};

/// A conflict: the stamp of the other access (0: none), and whether that one wrote.
struct Conflict {
    Stamp stamp = 0;
    bool write = false;
};

/// Lane's access to one word or byte.
Conflict step(const Actor&, Stamp* const cell[4], uint32_t lane);
/// Lane's access to `bytes` at `offset` (0..3) of the word where `cells` begins; words may be split.
Conflict step_bytes(const Actor&, const Cells&, uint32_t offset, uint32_t bytes, uint32_t lane);
/// All words quiet or already ours: does the whole access (words of lane i: [i * per_lane, ...)) and returns
/// true; otherwise changes nothing.
bool step_quietly(const Actor&, const Cells&, uint32_t words, uint32_t per_lane, uint32_t first_lane);

} // namespace vgpu
