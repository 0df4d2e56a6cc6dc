// Ranks of a communicator are threads (or one thread) of this process, with a virtual device each. A
// collective is a meeting: it happens when the op of every rank has reached the head of its stream.
#pragma once
#include <nccl.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tools/vgpu/cudart/runtime.h"

namespace vgpu::nccl {

using namespace vgpu::cuda;

enum class Collective : uint8_t { all_reduce, reduce_scatter, all_gather, broadcast, reduce, all_to_all };

struct Call {
    Collective kind;
    uint64_t send, recv;
    size_t count; // elements, as the function defines it
    ncclDataType_t type;
    ncclRedOp_t op;
    int root;
    std::string text() const; // "AllReduce of 5 f32 (sum)"
    bool same(const Call&) const;
};

/// The calls of all ranks with one sequence number.
struct Meeting {
    std::map<int, Call> calls; // by rank
    std::set<int> arrived;     // ranks whose op is at the head of its stream
    bool done = false, broken = false;
};

/// One message between two ranks.
struct Message {
    struct End {
        bool posted = false, arrived = false;
        uint64_t address = 0;
        size_t count = 0;
        ncclDataType_t type{};
    } send, recv;
    bool done = false, broken = false;
};

struct World {
    std::string id;
    int size = 0;
    std::vector<ncclComm*> ranks; // null until they have joined
    int joined = 0;
    bool aborted = false;
    std::map<uint64_t, std::shared_ptr<Meeting>> meetings;
    std::map<std::pair<int, int>, std::vector<std::shared_ptr<Message>>>
        messages; // (from, to): not yet both posted
};

} // namespace vgpu::nccl

struct ncclComm {
    vgpu::nccl::World* world;
    int rank, device;
    bool alive = true;
    std::thread::id thread;
    uint64_t sequence = 0; // collectives called so far
    ncclResult_t error = ncclSuccess;
    std::string why;
};

namespace vgpu::nccl {

/// A send or receive.
struct Transfer {
    bool send;
    uint64_t address;
    size_t count;
    ncclDataType_t type;
    int peer;
};

/// What one rank does at once on one stream: a collective, or the sends and receives of a group.
Work collective_work(ncclComm* comm, const Call& call);
Work transfer_work(ncclComm* comm, const std::vector<Transfer>& transfers);

/// Bytes of the buffers that a rank gives to a collective; 0: it gives none.
size_t send_bytes(const ncclComm* comm, const Call& call);
size_t recv_bytes(const ncclComm* comm, const Call& call);

} // namespace vgpu::nccl
