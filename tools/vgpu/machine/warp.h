// The state of a running block: warps with their lanes' places in the code, barriers, copies under way.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tools/vgpu/machine/code.h"
#include "tools/vgpu/machine/launch.h"
#include "tools/vgpu/machine/observer.h"
#include "tools/vgpu/report.h"

namespace vgpu {

struct Block;

enum class Wait : uint8_t { ready, collective, barrier };

/// Lanes of a warp that are at the same place.
struct Group {
    uint32_t pc = 0, mask = 0;
    Wait wait = Wait::ready;
    uint32_t barrier = 0; // its id
    bool forced = false;  // goes on although lanes of its collective are missing
};

/// A cp.async of a warp that was issued and has not landed yet.
struct PendingCopy {
    const Op* op;
    uint32_t mask;
    uint32_t bytes;
    uint64_t target[32];
    uint32_t group[32]; // number of the commit group, by lane
    std::byte data[32][16];
};

/// A wgmma that was issued and not waited for.
struct PendingProduct {
    const Op* op;
    uint32_t group;
    bool a_in_registers, accumulate;
    uint64_t descriptor_a = 0, descriptor_b = 0;
    uint32_t a[4][32];
};

struct Block;
struct Warp;

/// A bulk copy that was issued: lands when somebody waits for its mbarrier.
struct PendingBulk {
    Warp* issuer;
    const Op* op;
    uint32_t lane;
    Block* block; // of target and mbarrier
    uint32_t target, mbarrier;
    uint32_t swizzle;
    std::vector<std::byte> data;
};

struct Warp {
    Block* block = nullptr;
    std::byte* file = nullptr; // registers
    WarpId id{};
    uint32_t lanes = 0; // that exist
    uint32_t live = 0;  // that have not ended
    Group groups[33];
    int group_count = 0;
    bool turn_over = false; // an instruction asks for others to run now
    bool starved = false;   // the last turn ended by its length: another group is next
    uint64_t thread_instructions = 0, warp_instructions = 0;
    std::vector<PendingCopy> copies;
    uint32_t committed[32] = {};
    std::vector<PendingProduct> products;
    uint32_t product_groups = 0;
    uint32_t cluster_phase[32] = {}; // at the last barrier.cluster.arrive
    bool again = false;              // the instruction is to be executed once more
    uint64_t idle_polls = 0;         // waits in vain

    template <class T> T* at(int32_t offset) { return reinterpret_cast<T*>(file + offset); }
    uint32_t& predicate(int32_t offset) { return *at<uint32_t>(offset); }
};

/// A barrier of bar.sync: who has arrived.
struct Barrier {
    uint32_t arrived = 0;        // threads
    uint32_t expected = 0;       // given by the program; 0: all threads of the block
    std::vector<uint32_t> lanes; // by warp
    const Op* first = nullptr;   // the instruction of the first arrival
    uint32_t votes = 0;          // bar.red: predicates that were true
    bool complained = false;
};

struct Block {
    BlockId id{};
    const Launch* launch = nullptr;
    const Code* code = nullptr;
    Observer* observer = nullptr;
    std::byte* shared = nullptr;
    uint32_t shared_bytes = 0;
    std::byte* local = nullptr; // threads after each other
    std::vector<Warp> warps;
    Barrier barriers[16];
    std::vector<Block*> cluster; // by rank; itself alone without clusters
    uint32_t cluster_rank = 0;
    std::vector<PendingBulk> bulk;
    uint32_t cluster_arrived = 0, cluster_phase = 0; // of the block of rank 0
    uint64_t progress = 0; // changes whenever something happens that others may wait for
    bool aborted = false;
    std::minstd_rand random;

    uint64_t instructions = 0; // of threads
};

/// A finding of the machine itself at an instruction.
void complain(Warp&, const Op&, Fault, uint32_t lane, const std::string& what);
std::string hex(uint32_t);
Dim3 thread_of(const Warp&, uint32_t lane);

inline uint32_t lowest(uint32_t mask) { return uint32_t(__builtin_ctz(mask)); }

// Memory (exec_memory.cpp)
// -----------------------------------------------------------------------------------

/// The host addresses of a warp's access, checked: translate() asks the observer, checks the bounds of
/// windows and returns the lanes that may go on. Lanes of one generic access may lie in several windows.
uint32_t translate(Warp&, const Op&, const Memory&, Kind, uint32_t bytes, uint32_t mask,
                   const uint64_t* address, std::byte** host, const std::byte* value = nullptr);
/// base register + offset of a memory operand.
void addresses(Warp&, const Memory&, int32_t base, uint64_t* out);
/// Writes the copies of these lanes that belong to all but the `newest` last commit groups
/// (-1: all copies, committed or not).
void land_copies(Warp&, uint32_t mask, int64_t newest);

} // namespace vgpu
