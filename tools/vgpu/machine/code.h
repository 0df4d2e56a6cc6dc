// Decoded code. A virtual register is 32 lanes side by side in the register file of a warp; operands are byte
// offsets into that file, and so are constants and special registers, which lie in front of the registers.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tools/vgpu/machine/module.h"

namespace vgpu {

struct Warp;
struct Op;

/// Executes one instruction for the lanes in `mask` (never empty).
using Exec = void (*)(Warp&, const Op&, uint32_t mask);

/// What the scheduler has to do around an instruction.
enum class Flow : uint8_t {
    next,       // nothing: execute and go on
    branch,     // to target, for the lanes of the guard
    indexed,    // brx.idx: exec has written the pcs of the lanes
    exit,       // lanes end
    collective, // waits for the lanes of a mask (r[5]; none: all lanes of the warp)
    barrier,    // bar.*: waits for other warps
    yield       // nanosleep: executed, then others get a turn
};

/// Where a memory instruction goes; filled for those alone.
struct Memory {
    Space space = Space::global;
    bool generic = false, parameter = false, cluster = false;
    Order order = Order::weak;
    Scope scope = Scope::gpu;
    uint32_t bytes = 0;       // of one element
    uint32_t count = 1;       // elements of a vector
    int64_t offset = 0;       // added to the address
    bool wide_address = true; // 64-bit register
};

/// Operands that do not fit into Op.
struct Extra {
    Memory memory;
    std::vector<int32_t> registers; // of vectors
    int64_t value[4] = {};
    std::string text;
};

/// Flags of Flow::barrier ops. r: result, id, number of threads, predicate.
enum BarrierFlag : uint16_t {
    ARRIVE = 1,
    ALIGNED = 2,
    REDUCE_POPC = 4,
    REDUCE_AND = 8,
    REDUCE_OR = 16,
    NEGATED = 32
};

constexpr int32_t NO_REGISTER = -1;

struct alignas(64) Op {
    Exec exec = nullptr;
    int32_t guard = NO_REGISTER;
    bool guard_negated = false;
    Flow flow = Flow::next;
    uint16_t flags = 0;
    Unit unit = Unit::other;
    bool memory = false; // tells the observer itself
    int32_t r[6] = {NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER};
    uint32_t target = 0; // of a branch: op, or table

    uint32_t site = 0; // index into Code::sites
    union {
        int64_t value = 0;
        const Extra* extra;
    };
};
static_assert(sizeof(Op) == 64);

struct ConstantLanes { // a literal, the same in all lanes
    uint32_t offset;
    uint32_t width; // bytes; 0: predicate
    uint64_t bits;
};

/// Special registers that are constant for a thread (the others are instructions).
enum class Special : uint8_t {
    tid_x,
    tid_y,
    tid_z,
    ntid_x,
    ntid_y,
    ntid_z,
    ctaid_x,
    ctaid_y,
    ctaid_z,
    nctaid_x,
    nctaid_y,
    nctaid_z,
    laneid,
    warpid,
    nwarpid,
    smid,
    nsmid,
    gridid,
    lanemask_eq,
    lanemask_le,
    lanemask_lt,
    lanemask_ge,
    lanemask_gt,
    dynamic_smem_size,
    total_smem_size,
    aggr_smem_size,
    clusterid_x,
    clusterid_y,
    clusterid_z,
    nclusterid_x,
    nclusterid_y,
    nclusterid_z,
    cluster_ctaid_x,
    cluster_ctaid_y,
    cluster_ctaid_z,
    cluster_nctaid_x,
    cluster_nctaid_y,
    cluster_nctaid_z,
    cluster_ctarank,
    cluster_nctarank,
    is_explicit_cluster
};
struct SpecialLanes {
    uint32_t offset;
    Special which;
};

struct Code {
    std::vector<Op> ops;
    std::vector<Site> sites;
    std::vector<std::unique_ptr<Extra>> extras;
    std::vector<std::unique_ptr<std::string>> strings; // behind the const char* of sites
    std::vector<ConstantLanes> constants;
    std::vector<SpecialLanes> specials;
    std::vector<std::vector<uint32_t>> branch_tables;
    uint32_t register_bytes = 0;  // of a warp's file
    uint32_t local_bytes = 0;     // of a thread
    uint32_t shared_bytes = 0;    // static
    uint32_t registers_alive = 0; // 32-bit registers at once, estimated
    std::string kernel;
    uint32_t parameter_bytes = 0;
};

} // namespace vgpu
