// ldmatrix, stmatrix, movmatrix: 8 x 8 tiles of 16-bit elements between shared memory and fragments.
//   lane 4 g + t holds of a tile the elements (g, 2t) and (g, 2t + 1), or, transposed, (2t, g) and (2t + 1,
//   g)
//                                                                            PTX ISA, "ldmatrix"
#include "tools/vgpu/machine/memory_modifiers.h"

namespace vgpu {
namespace {

using Tile = uint16_t[8][8];

void to_lanes(const Tile& tile, bool transposed, uint32_t* lanes) {
    for (int i = 0; i < 32; i++) {
        int g = i / 4, t = i % 4;
        lanes[i] = transposed ? tile[2 * t][g] | uint32_t(tile[2 * t + 1][g]) << 16
                              : tile[g][2 * t] | uint32_t(tile[g][2 * t + 1]) << 16;
    }
}
void from_lanes(const uint32_t* lanes, bool transposed, Tile& tile) {
    for (int i = 0; i < 32; i++) {
        int g = i / 4, t = i % 4;
        uint16_t low = uint16_t(lanes[i]), high = uint16_t(lanes[i] >> 16);
        if (transposed)
            tile[2 * t][g] = low, tile[2 * t + 1][g] = high;
        else
            tile[g][2 * t] = low, tile[g][2 * t + 1] = high;
    }
}

/// r[0]: address (lane 8 j + i: row i of tile j); Extra::registers: tiles. flags: transposed.
template <bool LOADS> void tiles(Warp& w, const Op& op, uint32_t mask) {
    const auto& registers = op.extra->registers;
    uint32_t n = uint32_t(registers.size());
    uint32_t rows = n == 4 ? ~0u : (1u << (8 * n)) - 1; // the lanes whose addresses count
    uint64_t address[32];
    std::byte* host[32];
    addresses(w, op.extra->memory, op.r[0], address);
    uint32_t good =
        translate(w, op, op.extra->memory, LOADS ? Kind::load : Kind::store, 16, rows & mask, address, host);
    for (uint32_t j = 0; j < n; j++) {
        Tile tile = {};
        uint32_t lanes[32];
        if (!LOADS) {
            std::memcpy(lanes, w.at<uint32_t>(registers[j]), sizeof lanes);
            from_lanes(lanes, op.flags, tile);
        }
        for (uint32_t i = 0; i < 8; i++) {
            if (!(good >> (8 * j + i) & 1)) continue;
            if (LOADS)
                std::memcpy(tile[i], host[8 * j + i], 16);
            else
                std::memcpy(host[8 * j + i], tile[i], 16);
        }
        if (LOADS) {
            to_lanes(tile, op.flags, lanes);
            blend(w.at<uint32_t>(registers[j]), lanes, mask);
        }
    }
}

void decode_tiles(Decoder& d, const ptx::Instruction& i, Modifiers& m, bool loads) {
    if (!m.take("sync") || !m.take("aligned") || !m.take("m8n8")) d.fail("only .sync.aligned.m8n8 is known");
    std::string_view count = m.one_of({"x1", "x2", "x4"});
    bool transposed = m.take("trans");
    if (!m.take("b16") || count.empty()) d.fail("only .x1, .x2, .x4 of .b16 are known");
    Memory memory = memory_of(m);
    d.want_operands(i, 2, 2);
    const ptx::Operand &data = i.operands[loads ? 0 : 1], &place = i.operands[loads ? 1 : 0];
    std::vector<int32_t> registers;
    auto add = [&](const ptx::Operand& o) {
        registers.push_back(loads ? d.destination(o, 'w') : d.source(o, 'w'));
    };
    if (data.kind == ptx::Operand::vector) {
        for (const ptx::Operand& o : data.list) add(o);
    } else {
        add(data);
    }
    if (registers.size() != size_t(count[1] - '0'))
        d.fail("the vector has another length than the opcode says");
    int32_t base = d.address(place, memory);
    Op& op = d.emit(loads ? tiles<true> : tiles<false>, i, Flow::collective);
    Extra& e = d.extra(op);
    e.memory = memory, e.registers = std::move(registers);
    op.r[0] = base, op.flags = transposed;
}

void transpose(Warp& w, const Op& op, uint32_t mask) {
    Tile tile;
    uint32_t lanes[32];
    from_lanes(w.at<uint32_t>(op.r[1]), false, tile);
    to_lanes(tile, true, lanes);
    blend(w.at<uint32_t>(op.r[0]), lanes, mask);
}

} // namespace

void add_matrix(Table& t) {
    t.decode("ldmatrix",
             [](Decoder& d, const ptx::Instruction& i, Modifiers& m) { decode_tiles(d, i, m, true); });
    t.decode("stmatrix",
             [](Decoder& d, const ptx::Instruction& i, Modifiers& m) { decode_tiles(d, i, m, false); });
    t.add("movmatrix.sync.aligned.m8n8.trans.b16", {transpose, "ww", Flow::collective});
}

} // namespace vgpu
