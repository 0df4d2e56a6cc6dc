// NCCL's functions. Ranks are threads, each with its virtual device; a single thread may own several ranks if
// it groups their calls.
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "tools/vgpu/cudart/copy.h"
#include "tools/vgpu/nccl/reduce.h"
#include "tools/vgpu/nccl/world.h"

using namespace vgpu;
using namespace vgpu::cuda;
using namespace vgpu::nccl;

namespace {

struct No {
    ncclResult_t status;
    std::string why;
};
[[noreturn]] void no(ncclResult_t status, const std::string& why) { throw No{status, why}; }

// Worlds and communicators stay for good: stale handles are recognised, and ops may still name them.
std::vector<std::unique_ptr<World>>& worlds() {
    static auto& all = *new std::vector<std::unique_ptr<World>>;
    return all;
}
std::vector<std::unique_ptr<ncclComm>>& comms() {
    static auto& all = *new std::vector<std::unique_ptr<ncclComm>>;
    return all;
}

template <class F> ncclResult_t guarded(const char* name, F body) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    try {
        body(r);
        return ncclSuccess;
    } catch (const No& n) {
        r.finding(Fault::api, name, n.why);
        r.why = n.why;
        return n.status;
    } catch (const Refusal& e) {
        r.failed(name, e);
        return e.status == cudaErrorInvalidValue ? ncclInvalidArgument : ncclUnhandledCudaError;
    } catch (const Deadlock& e) {
        r.finding(Fault::deadlock, name, e.what());
        r.why = e.what();
        return ncclSystemError;
    }
}

ncclComm* checked(ncclComm_t handle) {
    for (auto& c : comms())
        if (c.get() == handle) {
            if (!c->alive) no(ncclInvalidArgument, "the communicator was destroyed before");
            return handle;
        }
    no(ncclInvalidArgument, "this is no communicator");
}

// A thread that owns ranks: when all of these wait, the program hangs.
struct Owner {
    int ranks = 0;
    ~Owner() {
        if (!ranks) return;
        Queue& q = runtime().queue;
        std::unique_lock lock(q.mutex);
        q.rank_thread(false);
    }
};
thread_local Owner owner;

struct Grouped {
    ncclComm* comm;
    cudaStream_t stream;
    std::optional<Call> call;
    std::optional<Transfer> transfer;
};
struct Group {
    int depth = 0;
    std::vector<Grouped> calls;
    std::vector<World*> joining;
};
thread_local Group group;

World* world_of(const ncclUniqueId& id, int size) {
    std::string key(id.internal, sizeof id.internal);
    for (auto& w : worlds())
        if (w->id == key) {
            if (w->size != size) no(ncclInvalidArgument, "ranks of one id were told different sizes");
            return w.get();
        }
    auto w = std::make_unique<World>();
    w->id = key, w->size = size, w->ranks.resize(size_t(size));
    worlds().push_back(std::move(w));
    return worlds().back().get();
}

ncclComm* join(World* w, int rank, int device) {
    if (rank < 0 || rank >= w->size)
        no(ncclInvalidArgument, "rank " + std::to_string(rank) + " of " + std::to_string(w->size));
    if (w->ranks[size_t(rank)]) no(ncclInvalidUsage, "rank " + std::to_string(rank) + " joins a second time");
    for (ncclComm* other : w->ranks)
        if (other && other->device == device)
            no(ncclInvalidUsage, "ranks " + std::to_string(other->rank) + " and " + std::to_string(rank) +
                                     " are on one device (VGPU_DEVICES)");
    comms().push_back(std::make_unique<ncclComm>());
    ncclComm* c = comms().back().get();
    c->world = w, c->rank = rank, c->device = device, c->thread = std::this_thread::get_id();
    w->ranks[size_t(rank)] = c;
    w->joined++;
    if (owner.ranks++ == 0) runtime().queue.rank_thread(true);
    return c;
}

void wait_for_all(Runtime& r, World* w) {
    r.queue.wait_for_others([w] { return w->joined == w->size; }, "ncclCommInitRank: ranks are missing");
}

void check_buffer(Runtime& r, ncclComm* comm, const char* name, const char* which, uint64_t address,
                  size_t bytes) {
    if (!bytes) return;
    Device* d = r.owner(address);
    if (!d) no(ncclInvalidArgument, std::string(which) + " buffer is not on a device");
    if (d->number != comm->device)
        no(ncclInvalidArgument, std::string(which) + " buffer is on another device than its rank");
    check_range(r, name, address, bytes);
}

void run_group(Runtime& r, std::vector<Grouped> calls) {
    auto submit = [&](ncclComm* comm, cudaStream_t handle, Work w) {
        CUstream_st* s = r.stream(handle);
        if (s->device != comm->device && !handle) s = &r.device(comm->device).legacy;
        if (s->device != comm->device)
            no(ncclInvalidArgument, "the stream is on another device than the rank");
        r.enqueue(s, std::move(w));
    };
    std::vector<ncclComm*> order; // of those with transfers
    for (Grouped& g : calls) {
        if (g.call)
            submit(g.comm, g.stream, collective_work(g.comm, *g.call));
        else if (std::find(order.begin(), order.end(), g.comm) == order.end())
            order.push_back(g.comm);
    }
    for (ncclComm* comm : order) {
        std::vector<Transfer> transfers;
        cudaStream_t stream{};
        for (Grouped& g : calls) {
            if (g.comm != comm || !g.transfer) continue;
            if (!transfers.empty() && g.stream != stream)
                no(ncclInvalidUsage, "sends and receives of one group on several streams are not known here");
            stream = g.stream;
            transfers.push_back(*g.transfer);
        }
        submit(comm, stream, transfer_work(comm, transfers));
    }
}

void post(Runtime& r, Grouped g) {
    if (group.depth) {
        group.calls.push_back(std::move(g));
        return;
    }
    if (g.call) {
        auto mine = [](ncclComm* c) { return c && c->thread == std::this_thread::get_id(); };
        auto& ranks = g.comm->world->ranks;
        if (std::count_if(ranks.begin(), ranks.end(), mine) > 1)
            no(ncclInvalidUsage,
               "a thread with several ranks must call collectives between ncclGroupStart and ncclGroupEnd");
    }
    run_group(r, {std::move(g)});
}

ncclResult_t collective(const char* name, Call call, ncclComm_t handle, cudaStream_t stream) {
    return guarded(name, [&](Runtime& r) {
        ncclComm* comm = checked(handle);
        if (!bytes_of(call.type)) no(ncclInvalidArgument, "this element type is not known here");
        if (call.op < 0 || call.op > ncclAvg) no(ncclInvalidArgument, "this reduction is not known here");
        if (call.root < 0 || call.root >= comm->world->size) no(ncclInvalidArgument, "no such root");
        check_buffer(r, comm, name, "the send", call.send, send_bytes(comm, call));
        check_buffer(r, comm, name, "the receive", call.recv, recv_bytes(comm, call));
        post(r, {comm, stream, call, {}});
    });
}

ncclResult_t transfer(const char* name, Transfer t, ncclComm_t handle, cudaStream_t stream) {
    return guarded(name, [&](Runtime& r) {
        ncclComm* comm = checked(handle);
        if (!bytes_of(t.type)) no(ncclInvalidArgument, "this element type is not known here");
        if (t.peer < 0 || t.peer >= comm->world->size) no(ncclInvalidArgument, "no such peer");
        check_buffer(r, comm, name, "the", t.address, t.count * bytes_of(t.type));
        post(r, {comm, stream, {}, t});
    });
}

uint64_t at(const void* p) { return reinterpret_cast<uint64_t>(p); }

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    return guarded("ncclGetUniqueId", [&](Runtime&) {
        static uint64_t count = 0;
        std::memset(id, 0, sizeof *id);
        std::snprintf(id->internal, sizeof id->internal, "vgpu world %llu",
                      static_cast<unsigned long long>(++count));
    });
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
    return guarded("ncclCommInitRank", [&](Runtime& r) {
        if (size < 1) no(ncclInvalidArgument, "a communicator of " + std::to_string(size) + " ranks");
        World* w = world_of(id, size);
        *comm = join(w, rank, Runtime::current_device());
        if (group.depth)
            group.joining.push_back(w);
        else
            wait_for_all(r, w);
    });
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
    if (config && config->blocking == 0)
        return guarded("ncclCommInitRankConfig",
                       [](Runtime&) { no(ncclInvalidArgument, "communicators that do not block"); });
    return ncclCommInitRank(comm, size, id, rank);
}

ncclResult_t ncclCommInitAll(ncclComm_t* comm, int size, const int* devices) {
    return guarded("ncclCommInitAll", [&](Runtime& r) {
        ncclUniqueId id;
        ncclGetUniqueId(&id);
        World* w = world_of(id, size);
        for (int i = 0; i < size; i++) comm[i] = join(w, i, r.device(devices ? devices[i] : i).number);
    });
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    return guarded("ncclCommFinalize", [&](Runtime&) { checked(comm); });
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    return guarded("ncclCommDestroy", [&](Runtime& r) {
        checked(comm)->alive = false;
        if (comm->thread == std::this_thread::get_id() && --owner.ranks == 0) r.queue.rank_thread(false);
    });
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    return guarded("ncclCommAbort", [&](Runtime& r) {
        checked(comm)->alive = false;
        comm->world->aborted = true;
        if (comm->thread == std::this_thread::get_id() && --owner.ranks == 0) r.queue.rank_thread(false);
    });
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
    return guarded("ncclCommCount", [&](Runtime&) { *count = checked(comm)->world->size; });
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
    return guarded("ncclCommUserRank", [&](Runtime&) { *rank = checked(comm)->rank; });
}
ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
    return guarded("ncclCommCuDevice", [&](Runtime&) { *device = checked(comm)->device; });
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
    return guarded("ncclCommGetAsyncError", [&](Runtime&) { *error = checked(comm)->error; });
}

const char* ncclGetErrorString(ncclResult_t result) {
    static const char* texts[] = {"no error",
                                  "unhandled cuda error",
                                  "unhandled system error",
                                  "internal error",
                                  "invalid argument",
                                  "invalid usage",
                                  "remote process exited or there was a network error",
                                  "NCCL operation in progress"};
    return result >= 0 && result < ncclNumResults ? texts[result] : "unknown result code";
}

const char* ncclGetLastError(ncclComm_t comm) {
    thread_local std::string text;
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    text = comm && !comm->why.empty() ? comm->why : r.why;
    return text.c_str();
}

ncclResult_t ncclGroupStart() {
    group.depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    return guarded("ncclGroupEnd", [&](Runtime& r) {
        if (group.depth == 0) no(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
        if (--group.depth) return;
        auto joining = std::exchange(group.joining, {});
        auto calls = std::exchange(group.calls, {});
        for (World* w : joining) wait_for_all(r, w);
        run_group(r, std::move(calls));
    });
}

ncclResult_t ncclAllReduce(const void* send, void* recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    return collective("ncclAllReduce", {Collective::all_reduce, at(send), at(recv), count, type, op, 0}, comm,
                      stream);
}
ncclResult_t ncclReduceScatter(const void* send, void* recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    return collective("ncclReduceScatter",
                      {Collective::reduce_scatter, at(send), at(recv), count, type, op, 0}, comm, stream);
}
ncclResult_t ncclAllGather(const void* send, void* recv, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return collective("ncclAllGather", {Collective::all_gather, at(send), at(recv), count, type, ncclSum, 0},
                      comm, stream);
}
ncclResult_t ncclBroadcast(const void* send, void* recv, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    return collective("ncclBroadcast",
                      {Collective::broadcast, at(send), at(recv), count, type, ncclSum, root}, comm, stream);
}
ncclResult_t ncclBcast(void* buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
    return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}
ncclResult_t ncclReduce(const void* send, void* recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    return collective("ncclReduce", {Collective::reduce, at(send), at(recv), count, type, op, root}, comm,
                      stream);
}
ncclResult_t ncclAlltoAll(const void* send, void* recv, size_t count, ncclDataType_t type, ncclComm_t comm,
                          cudaStream_t stream) {
    return collective("ncclAlltoAll", {Collective::all_to_all, at(send), at(recv), count, type, ncclSum, 0},
                      comm, stream);
}
ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return transfer("ncclSend", {true, at(from), count, type, peer}, comm, stream);
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return transfer("ncclRecv", {false, at(to), count, type, peer}, comm, stream);
}

} // extern "C"
