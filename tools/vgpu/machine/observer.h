// What the machine tells about a running kernel, and whom it asks before it touches memory. The machine
// computes; observers (memory checks, race detection, traffic counters) judge. One observer serves one
// launch; its methods are called by all worker threads at once, but one block always stays on one worker.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vgpu {

struct Dim3 {
    uint32_t x = 1, y = 1, z = 1;
    uint64_t count() const { return uint64_t(x) * y * z; }
};

/// Where an instruction comes from: the PTX line, and the source line of .loc (with the chain of inlined
/// functions).
struct Site {
    const char* kernel = "";
    uint32_t ptx_line = 0;
    const char* source = ""; // "file.cu:58 via file.cu:71", empty without -lineinfo
};

enum class Space : uint8_t { global, shared, local, constant };
enum class Kind : uint8_t {
    load,
    store,
    atomic,      // read-modify-write: atom and red
    copy_load,   // the global side of cp.async or a bulk copy
    copy_issue,  // the shared side, when the copy is issued: nobody may touch these bytes until they have
                 // landed
    copy_landing // the shared side, when the data is written (as late as allowed)
};
enum class Order : uint8_t { weak, relaxed, acquire, release, acq_rel, volatile_ };
enum class Scope : uint8_t { cta, cluster, gpu, system };

/// One memory instruction of a warp.
struct Access {
    const Site* site;
    Space space;
    Kind kind;
    Order order = Order::weak;
    Scope scope = Scope::cta;
    uint32_t bytes;          // per lane
    uint32_t lanes;          // mask of the lanes that take part
    const uint64_t* address; // 32 of them. global: device address; shared and local: offset in the window
    /// Of stores, if the machine has it at hand: lane i stores value[i * bytes ...]. Lanes that store
    /// different values to one address race.
    const std::byte* value = nullptr;
};

/// Instruction classes worth counting beside memory.
enum class Unit : uint8_t { other, tensor, special, shuffle };

/// Who is running. `data` is the observer's own, one for each warp and block, null at their start.
struct BlockId {
    Dim3 block;
    uint64_t number; // linear
    uint32_t warps, threads;
    uint32_t shared_bytes; // static + dynamic
    void* data = nullptr;
};
struct WarpId {
    BlockId* block;
    uint32_t number; // in the block
    void* data = nullptr;
};

class Observer {
public:
    virtual ~Observer() = default;
    virtual void block_begin(BlockId&) {}
    virtual void block_end(BlockId&) {}
    /// Before the access happens. Returns the lanes that may perform it (the others read 0 and write
    /// nothing).
    virtual uint32_t access(WarpId&, const Access& a) { return a.lanes; }
    /// These lanes of the warp are ordered after each other: bar.warp.sync (shuffles and votes order
    /// nothing).
    virtual void warp_sync(WarpId&, uint32_t lanes) {}
    /// All threads that take part in barrier `id` of the block have arrived: `warps` lists them.
    virtual void block_barrier(BlockId&, uint32_t id, WarpId* const* warps, uint32_t count) {}
    /// Edges of finer objects: an mbarrier (address in shared memory) that was arrived at, or waited for.
    virtual void arrive(WarpId&, uint32_t lanes, uint64_t object) {}
    virtual void acquire(WarpId&, uint32_t lanes, uint64_t object) {}
    virtual void fence(WarpId&, uint32_t lanes, Scope) {}
    /// Any executed instruction that is not a memory access: mma, special function, shuffle, ...
    virtual void executed(WarpId&, const Site&, Unit, uint32_t lanes) {}
};

} // namespace vgpu
