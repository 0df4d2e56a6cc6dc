// What collectives do once all ranks have met.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "tools/vgpu/cudart/copy.h"
#include "tools/vgpu/nccl/reduce.h"
#include "tools/vgpu/nccl/world.h"

namespace vgpu::nccl {

namespace {

const char* name_of(Collective c) {
    static const char* names[] = {"AllReduce", "ReduceScatter", "AllGather",
                                  "Broadcast", "Reduce",        "AlltoAll"};
    return names[int(c)];
}
bool reduces(Collective c) {
    return c == Collective::all_reduce || c == Collective::reduce_scatter || c == Collective::reduce;
}
bool rooted(Collective c) { return c == Collective::broadcast || c == Collective::reduce; }

std::byte* bytes_at(uint64_t address) { return reinterpret_cast<std::byte*>(address); }

struct AllUnlocked {
    std::vector<std::unique_ptr<Unlocked>> all;
    AllUnlocked() {
        for (auto& d : runtime().devices) all.push_back(std::make_unique<Unlocked>(*d->memory));
    }
};

void mark(uint64_t address, size_t bytes) {
    if (DeviceMemory* m = DeviceMemory::of(address)) m->mark_written(address, bytes);
}

void fail(ncclComm* comm, ncclResult_t error, const std::string& why) {
    if (comm->error == ncclSuccess) comm->error = error, comm->why = why;
}

/// Every rank's send buffer as it was before the collective: receives may overlap sends (in place).
struct Inputs {
    std::vector<std::vector<std::byte>> copies;
    Inputs(World& w, Meeting& m) : copies(size_t(w.size)) {
        for (auto& [rank, call] : m.calls)
            if (size_t n = send_bytes(w.ranks[size_t(rank)], call))
                copies[size_t(rank)].assign(bytes_at(call.send), bytes_at(call.send) + n);
    }
};

/// Order of the ranks in a sum: 0, 1, 2, ..., or with `permute` any, as algorithms of NCCL differ.
std::vector<int> order_of(int size, uint64_t number) {
    std::vector<int> order(static_cast<size_t>(size));
    std::iota(order.begin(), order.end(), 0);
    const Options& o = runtime().options;
    if (!o.permute) return order;
    uint64_t state = o.seed * 0x9e3779b97f4a7c15 + number;
    for (int i = size - 1; i > 0; i--) {
        state = state * 6364136223846793005 + 1442695040888963407;
        std::swap(order[size_t(i)], order[size_t(state >> 33) % size_t(i + 1)]);
    }
    return order;
}

void deliver(World& w, Meeting& m, const Call& any, uint64_t number) {
    Inputs in(w, m);
    size_t element = bytes_of(any.type), bytes = any.count * element;
    auto reduced = [&](uint64_t to, size_t first) {
        std::vector<const void*> from;
        for (int r : order_of(w.size, number)) from.push_back(in.copies[size_t(r)].data() + first * element);
        reduce(bytes_at(to), from, any.count, any.type, any.op);
    };
    for (auto& [rank, call] : m.calls) {
        switch (any.kind) {
        case Collective::all_reduce: reduced(call.recv, 0); break;
        case Collective::reduce_scatter: reduced(call.recv, size_t(rank) * any.count); break;
        case Collective::reduce:
            if (rank == any.root) reduced(call.recv, 0);
            break;
        case Collective::broadcast:
            std::memcpy(bytes_at(call.recv), in.copies[size_t(any.root)].data(), bytes);
            break;
        case Collective::all_gather:
            for (int r = 0; r < w.size; r++)
                std::memcpy(bytes_at(call.recv) + size_t(r) * bytes, in.copies[size_t(r)].data(), bytes);
            break;
        case Collective::all_to_all:
            for (int r = 0; r < w.size; r++)
                std::memcpy(bytes_at(call.recv) + size_t(r) * bytes,
                            in.copies[size_t(r)].data() + size_t(rank) * bytes, bytes);
            break;
        }
        mark(call.recv, recv_bytes(w.ranks[size_t(rank)], call));
    }
}

void meet(World& w, Meeting& m, uint64_t number) {
    m.done = true;
    AllUnlocked unlocked;
    for (auto& [rank, call] : m.calls) {
        ncclComm* comm = w.ranks[size_t(rank)];
        std::string what = std::string("nccl") + name_of(call.kind) + ", rank " + std::to_string(rank);
        if (size_t n = send_bytes(comm, call); n && !check_touch(what, call.send, n, true)) return;
        if (size_t n = recv_bytes(comm, call); n && !check_touch(what, call.recv, n, false)) return;
    }
    deliver(w, m, m.calls.begin()->second, number);
}

/// Every rank must call the same.
void compare(ncclComm* comm, Meeting& m, const Call& call) {
    auto other = std::find_if(m.calls.begin(), m.calls.end(), [&](auto& c) { return c.first != comm->rank; });
    if (other == m.calls.end() || other->second.same(call)) return;
    std::string why = "rank " + std::to_string(comm->rank) + " calls " + call.text() + " where rank " +
                      std::to_string(other->first) + " calls " + other->second.text();
    m.broken = true;
    runtime().finding(Fault::api, "nccl", why);
    fail(comm, ncclInvalidUsage, why);
}

void exchange(Message& m) {
    m.done = true;
    if (m.broken) return;
    AllUnlocked unlocked;
    size_t bytes = m.send.count * bytes_of(m.send.type);
    if (!check_touch("ncclSend", m.send.address, bytes, true) ||
        !check_touch("ncclRecv", m.recv.address, bytes, false))
        return;
    std::memmove(bytes_at(m.recv.address), bytes_at(m.send.address), bytes);
    mark(m.recv.address, bytes);
}

std::shared_ptr<Message> post(ncclComm* comm, const Transfer& t) {
    World& w = *comm->world;
    auto key = t.send ? std::pair(comm->rank, t.peer) : std::pair(t.peer, comm->rank);
    auto& open = w.messages[key];
    auto it =
        std::find_if(open.begin(), open.end(), [&](auto& m) { return !(t.send ? m->send : m->recv).posted; });
    if (it == open.end()) it = open.insert(it, std::make_shared<Message>());
    std::shared_ptr<Message> m = *it;
    (t.send ? m->send : m->recv) = {true, false, t.address, t.count, t.type};
    if (!m->send.posted || !m->recv.posted) return m;
    open.erase(it);
    if (m->send.count != m->recv.count || m->send.type != m->recv.type) {
        std::string why = "rank " + std::to_string(key.first) + " sends " + std::to_string(m->send.count) +
                          " " + nccl::name_of(m->send.type) + ", rank " + std::to_string(key.second) +
                          " receives " + std::to_string(m->recv.count) + " " + nccl::name_of(m->recv.type);
        m->broken = true;
        runtime().finding(Fault::api, "nccl", why);
        fail(comm, ncclInvalidUsage, why);
    }
    return m;
}

} // namespace

std::string Call::text() const {
    std::string s = std::string(name_of(kind)) + " of " + std::to_string(count) + " " + name_of(type);
    if (reduces(kind)) s += std::string(" (") + name_of(op) + ")";
    if (rooted(kind)) s += " with root " + std::to_string(root);
    return s;
}

bool Call::same(const Call& o) const {
    return kind == o.kind && count == o.count && type == o.type && (!reduces(kind) || op == o.op) &&
           (!rooted(kind) || root == o.root);
}

size_t send_bytes(const ncclComm* comm, const Call& c) {
    size_t bytes = c.count * bytes_of(c.type), all = bytes * size_t(comm->world->size);
    if (c.kind == Collective::reduce_scatter || c.kind == Collective::all_to_all) return all;
    return c.kind == Collective::broadcast && comm->rank != c.root ? 0 : bytes;
}

size_t recv_bytes(const ncclComm* comm, const Call& c) {
    size_t bytes = c.count * bytes_of(c.type), all = bytes * size_t(comm->world->size);
    if (c.kind == Collective::all_gather || c.kind == Collective::all_to_all) return all;
    return c.kind == Collective::reduce && comm->rank != c.root ? 0 : bytes;
}

Work collective_work(ncclComm* comm, const Call& call) {
    Work w;
    w.kind = WorkKind::library;
    w.what = "nccl" + call.text() + ", rank " + std::to_string(comm->rank);
    if (size_t n = send_bytes(comm, call)) w.touches.push_back({call.send, n, false});
    if (size_t n = recv_bytes(comm, call)) w.touches.push_back({call.recv, n, true});
    w.bind = [comm, call, plain = w] {
        World& world = *comm->world;
        uint64_t number = comm->sequence++;
        auto& m = world.meetings[number];
        if (!m) m = std::make_shared<Meeting>();
        m->calls[comm->rank] = call;
        compare(comm, *m, call);
        Work bound = plain;
        bound.ready = [&world, m = m, rank = comm->rank] {
            m->arrived.insert(rank);
            return int(m->arrived.size()) == world.size || world.aborted || m->done;
        };
        bound.run = [&world, m = m, number](Op&) {
            if (m->broken || world.aborted) {
                for (auto& [rank, c] : m->calls)
                    fail(world.ranks[size_t(rank)], ncclInvalidUsage, "the ranks disagree");
            } else if (!m->done) {
                meet(world, *m, number);
            }
            if (int(m->calls.size()) == world.size) world.meetings.erase(number);
        };
        return bound;
    };
    return w;
}

Work transfer_work(ncclComm* comm, const std::vector<Transfer>& transfers) {
    Work w;
    w.kind = WorkKind::library;
    w.what = std::to_string(transfers.size()) + " ncclSend/ncclRecv of rank " + std::to_string(comm->rank);
    for (const Transfer& t : transfers) w.touches.push_back({t.address, t.count * bytes_of(t.type), !t.send});
    w.bind = [comm, transfers, plain = w] {
        std::vector<std::pair<bool, std::shared_ptr<Message>>> ends;
        for (const Transfer& t : transfers) ends.push_back({t.send, post(comm, t)});
        Work bound = plain;
        World& world = *comm->world;
        bound.ready = [&world, ends] {
            for (auto& [send, m] : ends) (send ? m->send : m->recv).arrived = true;
            return world.aborted || std::all_of(ends.begin(), ends.end(), [](auto& end) {
                       return end.second->done || (end.second->send.arrived && end.second->recv.arrived);
                   });
        };
        bound.run = [&world, ends](Op&) {
            if (world.aborted) return;
            for (auto& [send, m] : ends)
                if (!m->done) exchange(*m);
        };
        return bound;
    };
    return w;
}

} // namespace vgpu::nccl
