#include "tools/vgpu/machine/mbarrier.h"

#include <algorithm>
#include <bit>

#include "tools/vgpu/machine/memory_modifiers.h"
#include "tools/vgpu/machine/tensor_map.h"

namespace vgpu {

Mbarrier* mbarrier_at(Warp& w, const Op& op, uint32_t lane, uint64_t address, Block** block,
                      bool has_to_be_valid) {
    uint64_t offset = address & ~(255ull << 56);
    Block* b = w.block;
    if (offset >> 24) {
        uint64_t rank = (offset >> 24) - 1;
        offset &= 0xffffff;
        b = rank < b->cluster.size() ? b->cluster[rank] : nullptr;
    }
    if (!b || offset % 8 || offset + 8 > b->shared_bytes) {
        complain(w, op, b && offset % 8 ? Fault::misaligned : Fault::out_of_bounds, lane,
                 "no mbarrier can be at this shared address");
        return nullptr;
    }
    auto* m = reinterpret_cast<Mbarrier*>(b->shared + offset);
    uint64_t bits;
    std::memcpy(&bits, m, 8);
    if (has_to_be_valid && (!m->valid || bits == ~0ull)) {
        complain(w, op, Fault::uninitialised, lane, "the mbarrier has not been initialised");
        return nullptr;
    }
    if (block) *block = b;
    return m;
}

void arrive_at(Block& b, Mbarrier& m, uint32_t arrivals, int64_t bytes) {
    m.bytes = m.bytes + bytes;
    m.pending = m.pending - arrivals;
    if (m.pending == 0 && m.bytes == 0) m.phase = m.phase ^ 1, m.pending = m.expected;
    b.progress++;
}

void land_bulk(Block& b, uint32_t offset) {
    for (size_t k = 0; k < b.bulk.size();) {
        if (b.bulk[k].mbarrier != offset) {
            k++;
            continue;
        }
        PendingBulk c = std::move(b.bulk[k]);
        b.bulk.erase(b.bulk.begin() + ptrdiff_t(k));
        auto bytes = uint32_t(c.data.size());
        if (b.observer) {
            uint64_t address[32] = {};
            address[c.lane] = c.target;
            Access a{&b.code->sites[c.op->site],
                     Space::shared,
                     Kind::copy_landing,
                     Order::weak,
                     Scope::cta,
                     bytes,
                     1u << c.lane,
                     address};
            if (c.issuer->block == &b)
                b.observer->access(c.issuer->id, a), b.observer->arrive(c.issuer->id, 1u << c.lane, offset);
        }
        for (uint32_t i = 0; i < bytes; i += 16)
            std::memcpy(b.shared + swizzled(c.target + i, c.swizzle), c.data.data() + i,
                        std::min(16u, bytes - i));
        arrive_at(b, *reinterpret_cast<Mbarrier*>(b.shared + offset), 0, -int64_t(bytes));
    }
}

namespace {

uint64_t base_of(Warp& w, const Op& op, uint64_t* address) {
    addresses(w, op.extra->memory, op.r[1], address);
    return address[0];
}

/// r: - address count
void init(Warp& w, const Op& op, uint32_t mask) {
    uint64_t address[32];
    base_of(w, op, address);
    for (uint32_t k = mask; k; k &= k - 1) {
        uint32_t i = lowest(k), count = w.at<uint32_t>(op.r[2])[i];
        if (Mbarrier* m = mbarrier_at(w, op, i, address[i], nullptr, false)) *m = {count, count, 0, 1, 0};
    }
}
void invalidate(Warp& w, const Op& op, uint32_t mask) {
    uint64_t address[32];
    base_of(w, op, address);
    for (uint32_t k = mask; k; k &= k - 1) {
        if (Mbarrier* m = mbarrier_at(w, op, lowest(k), address[lowest(k)], nullptr)) *m = {};
    }
}

enum ArriveFlag : uint16_t { EXPECT = 1, NO_ARRIVAL = 2, COMPLETE = 4, COPIES = 8 };
/// r: state address count-or-bytes; flags; for arrive.expect_tx: bytes. value[0]: the count is given.
void arrive(Warp& w, const Op& op, uint32_t mask) {
    uint64_t address[32];
    base_of(w, op, address);
    if (op.flags & COPIES) land_copies(w, mask, -1);
    for (uint32_t k = mask; k; k &= k - 1) {
        uint32_t i = lowest(k);
        Block* b;
        Mbarrier* m = mbarrier_at(w, op, i, address[i], &b);
        if (!m) continue;
        if (op.r[0] != NO_REGISTER) w.at<uint64_t>(op.r[0])[i] = std::bit_cast<uint64_t>(*m);
        uint32_t n = op.r[2] == NO_REGISTER ? 1 : w.at<uint32_t>(op.r[2])[i];
        uint32_t arrivals = op.flags & NO_ARRIVAL ? 0 : op.flags & EXPECT ? 1 : n;
        int64_t bytes = op.flags & COMPLETE ? -int64_t(n) : op.flags & EXPECT ? int64_t(n) : 0;
        if (arrivals > m->pending) {
            complain(w, op, Fault::deadlock, i,
                     "more arrivals at the mbarrier than its count of " + std::to_string(m->expected));
            continue;
        }
        if (w.block->observer && b == w.block)
            w.block->observer->arrive(w.id, 1u << i, address[i] & 0xffffff);
        arrive_at(*b, *m, arrivals, bytes);
    }
}

/// r: p address state-or-parity; flags: parity given
void wait(Warp& w, const Op& op, uint32_t mask) {
    uint64_t address[32];
    base_of(w, op, address);
    uint32_t done = 0;
    for (uint32_t k = mask; k; k &= k - 1) {
        uint32_t i = lowest(k);
        Block* b;
        Mbarrier* m = mbarrier_at(w, op, i, address[i], &b);
        if (!m) {
            done |= 1u << i; // reported; do not hang as well
            continue;
        }
        uint32_t phase =
            op.flags ? w.at<uint32_t>(op.r[2])[i] & 1 : uint32_t(w.at<uint64_t>(op.r[2])[i] >> 63);
        if (m->phase == phase) land_bulk(*b, uint32_t(address[i] & 0xffffff));
        if (m->phase == phase) continue;
        done |= 1u << i;
    }
    if (uint32_t yes = done; yes && w.block->observer) {
        while (yes) {
            uint32_t same = 0;
            for (uint32_t k = yes; k; k &= k - 1)
                same |= address[lowest(k)] == address[lowest(yes)] ? k & -k : 0;
            w.block->observer->acquire(w.id, same, address[lowest(yes)] & 0xffffff);
            yes &= ~same;
        }
    }
    uint32_t& p = w.predicate(op.r[0]);
    p = (p & ~mask) | done;
    if (done != mask) w.turn_over = true, w.idle_polls++;
}

void decode_mbarrier(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    std::string_view kind =
        m.one_of({"init", "inval", "arrive", "expect_tx", "complete_tx", "test_wait", "try_wait"});
    bool parity = m.take("parity"), expect = kind == "expect_tx" || m.take("expect_tx");
    Memory memory = memory_of(m);
    if (!m.take("b64")) d.fail("unknown type");
    bool waits = kind == "test_wait" || kind == "try_wait";
    size_t at = kind == "arrive" || waits ? 1 : 0; // of the address
    d.want_operands(i, at + 1, at + 3);
    int32_t result = NO_REGISTER, third = NO_REGISTER;
    if (waits)
        result = d.destination(i.operands[0], 'p');
    else if (at && i.operands[0].kind == ptx::Operand::reg)
        result = d.destination(i.operands[0], 'x');
    int32_t base = d.address(i.operands[at], memory);
    if (i.operands.size() > at + 1) third = d.source(i.operands[at + 1], waits && !parity ? 'x' : 'w');
    Exec exec = kind == "init" ? init : kind == "inval" ? invalidate : waits ? wait : arrive;
    if (kind.empty() || ((kind == "init" || waits) && third == NO_REGISTER)) d.fail("unknown form");
    Op& op = d.emit(exec, i, waits ? Flow::yield : Flow::next);
    d.extra(op).memory = memory;
    op.r[0] = result, op.r[1] = base, op.r[2] = third;
    op.flags = waits ? parity
                     : uint16_t((expect ? EXPECT : 0) |
                                (kind == "expect_tx" || kind == "complete_tx" ? NO_ARRIVAL : 0) |
                                (kind == "complete_tx" ? COMPLETE : 0));
}

/// cp.async.mbarrier.arrive[.noinc].shared.b64 [address]: arrives once the thread's copies have landed.
void decode_copy_arrive(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("arrive") || !m.take("noinc")) d.fail("only .arrive.noinc is known");
    Memory memory = memory_of(m);
    if (!m.take("b64")) d.fail("unknown type");
    d.want_operands(i, 1, 1);
    int32_t base = d.address(i.operands[0], memory);
    Op& op = d.emit(arrive, i);
    d.extra(op).memory = memory;
    op.r[1] = base, op.flags = COPIES;
}

// Clusters
// -----------------------------------------------------------------------------------------------------

/// r: result address rank; flags 1: 32 bits
void map_address(Warp& w, const Op& op, uint32_t mask) {
    const uint32_t* rank = w.at<uint32_t>(op.r[2]);
    for (uint32_t k = mask; k; k &= k - 1) {
        uint32_t i = lowest(k);
        if (op.flags)
            w.at<uint32_t>(op.r[0])[i] = (w.at<uint32_t>(op.r[1])[i] & 0xffffff) | (rank[i] + 1) << 24;
        else
            w.at<uint64_t>(op.r[0])[i] = (w.at<uint64_t>(op.r[1])[i] & ~0xff000000ull) | uint64_t(rank[i] + 1)
                                                                                             << 24;
    }
}
void decode_mapa(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    m.take("shared::cluster");
    bool narrow = m.take("u32");
    if (!narrow && !m.take("u64")) d.fail("unknown type");
    d.want_operands(i, 3, 3);
    char letter = narrow ? 'w' : 'x';
    int32_t out = d.destination(i.operands[0], letter), in = d.source(i.operands[1], letter),
            rank = d.source(i.operands[2], 'w');
    Op& op = d.emit(map_address, i);
    op.r[0] = out, op.r[1] = in, op.r[2] = rank, op.flags = narrow;
}

/// Arrivals of all threads are counted at the block of rank 0; value: the object that observers see.
constexpr uint64_t CLUSTER_OBJECT = 1ull << 40;

void cluster_arrive(Warp& w, const Op&, uint32_t mask) {
    Block& root = *w.block->cluster[0];
    if (w.block->observer) w.block->observer->arrive(w.id, mask, CLUSTER_OBJECT);
    for (uint32_t k = mask; k; k &= k - 1) w.cluster_phase[lowest(k)] = root.cluster_phase;
    root.cluster_arrived += uint32_t(std::popcount(mask));
    uint32_t all = 0;
    for (Block* b : w.block->cluster) all += b->id.threads;
    if (root.cluster_arrived == all) root.cluster_arrived = 0, root.cluster_phase++;
    w.block->progress++;
}
/// The wait is executed again until the phase has passed.
void cluster_wait(Warp& w, const Op&, uint32_t mask) {
    Block& root = *w.block->cluster[0];
    w.again = w.cluster_phase[lowest(mask)] == root.cluster_phase;
    if (w.again)
        w.turn_over = true, w.idle_polls++;
    else if (w.block->observer)
        w.block->observer->acquire(w.id, mask, CLUSTER_OBJECT);
}
void decode_cluster_barrier(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    bool arrives = m.take("arrive");
    if (!arrives && !m.take("wait")) d.fail("expected .arrive or .wait");
    m.one_of({"release", "relaxed", "acquire"});
    m.take("aligned");
    d.emit(arrives ? cluster_arrive : cluster_wait, i, arrives ? Flow::next : Flow::yield);
}

} // namespace

void add_mbarrier(Table& t) {
    t.decode("mbarrier", decode_mbarrier);
    t.decode("cp.async.mbarrier", decode_copy_arrive);
    t.decode("mapa", decode_mapa);
    t.decode("barrier.cluster", decode_cluster_barrier);
}

} // namespace vgpu
