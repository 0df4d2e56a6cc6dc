// Bulk copies: cp.async.bulk (a run of bytes) and cp.async.bulk.tensor (a box of a tensor, by a TensorMap),
// each issued by single threads. Loads are read at the issue and land when their mbarrier is waited for;
// stores happen at the issue.
#include <algorithm>

#include "tools/vgpu/machine/mbarrier.h"
#include "tools/vgpu/machine/memory_modifiers.h"
#include "tools/vgpu/machine/tensor_map.h"

namespace vgpu {
namespace {

/// One run of global memory of one lane, asked and read or written.
void global_run(Warp& w, const Op& op, uint32_t lane, uint64_t address, uint32_t bytes, Kind kind,
                std::byte* data) {
    uint64_t a[32] = {};
    std::byte* host[32];
    a[lane] = address;
    Memory m{.space = Space::global};
    if (!translate(w, op, m, kind, bytes, 1u << lane, a, host)) return;
    if (kind == Kind::store)
        std::memcpy(host[lane], data, bytes);
    else
        std::memcpy(data, host[lane], bytes);
}

/// Calls f(address in global memory, offset in the tile, bytes) for each row of the box that is inside.
template <class F> void each_row(const TensorMap& t, const int32_t* coordinate, F f) {
    uint32_t rows = 1, row_bytes = uint32_t(t.box[0]) * t.element;
    for (int k = 1; k < t.rank; k++) rows *= t.box[k];
    int64_t first = coordinate[0], last = std::min<int64_t>(first + t.box[0], int64_t(t.extent[0]));
    for (uint32_t row = 0; row < rows; row++) {
        uint64_t address = t.address;
        bool inside = true;
        uint32_t rest = row;
        for (int k = 1; k < t.rank; k++) {
            int64_t at = coordinate[k] + int64_t(rest % t.box[k]) * t.step[k];
            rest /= t.box[k];
            inside &= at >= 0 && at < int64_t(t.extent[k]);
            address += uint64_t(at) * t.stride[k - 1];
        }
        int64_t begin = std::max<int64_t>(first, 0);
        if (!inside || begin >= last) continue;
        f(address + uint64_t(begin) * t.element, row * row_bytes + uint32_t(begin - first) * t.element,
          uint32_t(last - begin) * t.element);
    }
}

/// A landing at the blocks of `ranks` (0: at this one).
void issue(Warp& w, const Op& op, uint32_t lane, uint64_t target, uint64_t mbarrier, uint32_t ranks,
           uint32_t swizzle, std::vector<std::byte> data) {
    auto bytes = uint32_t(data.size());
    auto one = [&](Block& b, uint32_t to, uint32_t object) {
        if (uint64_t(to) + bytes > b.shared_bytes) {
            complain(w, op, Fault::out_of_bounds, lane,
                     "the copy ends behind the shared memory of the block");
            return;
        }
        if (!mbarrier_at(w, op, lane, mbarrier, nullptr)) return;
        if (w.block->observer && &b == w.block) {
            uint64_t a[32] = {};
            a[lane] = to;
            Access access{&b.code->sites[op.site],
                          Space::shared,
                          Kind::copy_issue,
                          Order::weak,
                          Scope::cta,
                          bytes,
                          1u << lane,
                          a};
            if (!w.block->observer->access(w.id, access)) return;
        }
        std::memset(b.shared + to, 0xff, bytes);
        b.bulk.push_back({&w, &op, lane, &b, to, object, swizzle, data});
    };
    auto to = uint32_t(target & 0xffffff), object = uint32_t(mbarrier & 0xffffff);
    if (!ranks) {
        auto rank = uint32_t(target >> 24 & 0xff);
        Block& b =
            rank ? *w.block->cluster[std::min<size_t>(rank - 1, w.block->cluster.size() - 1)] : *w.block;
        return one(b, to, object);
    }
    for (uint32_t r = ranks; r; r &= r - 1) {
        if (lowest(r) < w.block->cluster.size()) one(*w.block->cluster[lowest(r)], to, object);
    }
}

uint64_t address_at(Warp& w, int32_t base, const Memory& m, uint32_t lane) {
    uint64_t a[32];
    addresses(w, m, base, a);
    return a[lane];
}
Memory memory_from(const Extra& e, int k) { // value[k]: offset << 1 | wide
    Memory m{.space = Space::shared};
    m.offset = e.value[k] >> 1, m.wide_address = e.value[k] & 1;
    return m;
}

const TensorMap* map_at(Warp& w, const Op& op, uint32_t lane, uint64_t address) {
    const std::byte* p = reinterpret_cast<const std::byte*>(address);
    if ((address >> 56) == PARAMETER_WINDOW >> 56)
        p = w.block->launch->parameters.data() + (address & 0xffffffff);
    auto* t = reinterpret_cast<const TensorMap*>(p);
    uint64_t magic;
    std::memcpy(&magic, p, 8);
    if (magic == TensorMap::MAGIC) return t;
    complain(w, op, Fault::api, lane, "the tensor map was not made by cuTensorMapEncodeTiled");
    return nullptr;
}

/// r: shared map mbarrier(or none) multicast(or none). registers: coordinates. value[0..1]: offsets.
template <bool LOADS> void tensor(Warp& w, const Op& op, uint32_t mask) {
    const Extra& e = *op.extra;
    for (uint32_t k = mask; k; k &= k - 1) {
        uint32_t lane = lowest(k);
        TensorMap t;
        const TensorMap* map = map_at(w, op, lane, w.at<uint64_t>(op.r[1])[lane]);
        if (!map) continue;
        std::memcpy(&t, map, sizeof t);
        if (t.rank != e.registers.size()) {
            complain(w, op, Fault::api, lane, "the tensor map has " + std::to_string(t.rank) + " dimensions");
            continue;
        }
        int32_t coordinate[5];
        for (size_t j = 0; j < e.registers.size(); j++) coordinate[j] = w.at<int32_t>(e.registers[j])[lane];
        uint64_t shared = address_at(w, op.r[0], memory_from(e, 0), lane);
        uint32_t bytes = t.element;
        for (int j = 0; j < t.rank; j++) bytes *= t.box[j];
        if ((shared & 0xffffff) % 128)
            complain(w, op, Fault::misaligned, lane,
                     "tiles of tensor copies begin at multiples of 128 bytes");
        std::vector<std::byte> data(bytes, t.nan_outside ? std::byte{0xff} : std::byte{});
        if (LOADS) {
            each_row(t, coordinate, [&](uint64_t at, uint32_t offset, uint32_t n) {
                global_run(w, op, lane, at, n, Kind::copy_load, data.data() + offset);
            });
            uint64_t mbarrier = address_at(w, op.r[2], memory_from(e, 1), lane);
            uint32_t ranks = op.r[3] == NO_REGISTER ? 0 : w.at<uint16_t>(op.r[3])[lane];
            issue(w, op, lane, shared, mbarrier, ranks, t.swizzle, std::move(data));
            continue;
        }
        if ((shared & 0xffffff) + bytes > w.block->shared_bytes) {
            complain(w, op, Fault::out_of_bounds, lane,
                     "the copy begins behind the shared memory of the block");
            continue;
        }
        uint64_t a[32] = {};
        std::byte* host[32];
        a[lane] = shared & 0xffffff;
        if (!translate(w, op, Memory{.space = Space::shared}, Kind::load, bytes, 1u << lane, a, host))
            continue;
        for (uint32_t i = 0; i < bytes; i += 16)
            std::memcpy(data.data() + i, w.block->shared + swizzled(uint32_t(a[lane]) + i, t.swizzle),
                        std::min(16u, bytes - i));
        each_row(t, coordinate, [&](uint64_t at, uint32_t offset, uint32_t n) {
            global_run(w, op, lane, at, n, Kind::store, data.data() + offset);
        });
    }
}

/// r: shared global mbarrier(or none) size. value[0..2]: offsets of shared, mbarrier, global.
template <bool LOADS> void bulk(Warp& w, const Op& op, uint32_t mask) {
    const Extra& e = *op.extra;
    for (uint32_t k = mask; k; k &= k - 1) {
        uint32_t lane = lowest(k), bytes = w.at<uint32_t>(op.r[3])[lane];
        uint64_t shared = address_at(w, op.r[0], memory_from(e, 0), lane),
                 global = address_at(w, op.r[1], memory_from(e, 2), lane);
        if (bytes % 16 || shared % 16 || global % 16) {
            complain(w, op, Fault::misaligned, lane,
                     "bulk copies have addresses and sizes that are multiples of 16 bytes");
            continue;
        }
        std::vector<std::byte> data(bytes);
        if (LOADS) {
            global_run(w, op, lane, global, bytes, Kind::copy_load, data.data());
            issue(w, op, lane, shared, address_at(w, op.r[2], memory_from(e, 1), lane), 0, 0,
                  std::move(data));
        } else {
            uint64_t a[32] = {};
            std::byte* host[32];
            a[lane] = shared;
            if (!translate(w, op, Memory{.space = Space::shared}, Kind::load, bytes, 1u << lane, a, host))
                continue;
            std::memcpy(data.data(), host[lane], bytes);
            global_run(w, op, lane, global, bytes, Kind::store, data.data());
        }
    }
}

int64_t packed(const Memory& m) { return m.offset << 1 | (m.wide_address ? 1 : 0); }

void decode_bulk(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (m.take("commit_group")) return; // stores happen at once
    if (m.take("wait_group")) {
        m.take("read");
        return;
    }
    bool tensors = m.take("tensor");
    std::string_view rank = tensors ? m.one_of({"1d", "2d", "3d", "4d", "5d"}) : std::string_view{};
    std::string_view to = m.first(), from = m.first();
    bool loads = to.starts_with("shared") && from == "global";
    if (!loads && !(to == "global" && from.starts_with("shared")))
        d.fail("copies go between global and shared memory");
    if (tensors) m.take("tile");
    if (loads ? !m.take("mbarrier::complete_tx::bytes") : !m.take("bulk_group")) d.fail("unknown completion");
    bool multicast = m.take("multicast::cluster");
    m.take("L2::cache_hint");
    d.want_operands(i, 2, 6);
    Memory shared, global, barrier;
    size_t s = loads ? 0 : 1, g = loads ? 1 : 0;
    int32_t r[4] = {NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER};
    std::vector<int32_t> coordinates;
    r[0] = d.address(i.operands[s], shared);
    r[1] = d.address(i.operands[g], global);
    size_t next = 2;
    if (tensors) {
        const auto& list = i.operands[g].list;
        if (list.size() != 2) d.fail("expected [map, {coordinates}]");
        for (const ptx::Operand& o :
             list[1].kind == ptx::Operand::vector ? list[1].list : std::vector{list[1]})
            coordinates.push_back(d.source(o, 'w'));
        if (rank.empty() || coordinates.size() != size_t(rank[0] - '0'))
            d.fail("another number of coordinates than dimensions");
    } else {
        r[3] = d.source(i.operands.at(next++), 'w');
    }
    if (loads) r[2] = d.address(i.operands.at(next++), barrier);
    if (multicast) r[3] = d.source(i.operands.at(next++), 'h');
    Op& op = d.emit(tensors ? (loads ? tensor<true> : tensor<false>) : (loads ? bulk<true> : bulk<false>), i);
    Extra& e = d.extra(op);
    e.registers = std::move(coordinates);
    e.value[0] = packed(shared), e.value[1] = packed(barrier), e.value[2] = packed(global);
    std::copy(std::begin(r), std::end(r), op.r);
    op.memory = true;
}

} // namespace

void add_bulk(Table& t) { t.decode("cp.async.bulk", decode_bulk); }

} // namespace vgpu
