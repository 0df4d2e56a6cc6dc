// wgmma.mma_async: D (64 x N) = A (64 x 16) B (16 x N) + D by the 4 warps of a warpgroup, 16 rows each. The
// product is computed as late as allowed: when its group is waited for, with what the operands in shared
// memory are then. A in registers has the fragments of mma.m16n8k16; D: 8 columns after each other as there.
//
// A descriptor gives an operand of 16-bit elements in shared memory (T = 8 elements = 16 bytes):
//   address, LBO, SBO (each in 16 bytes), and the swizzle S of 128, 64, 32 bytes or none
//   dense k     row r, k:   r % 8 rows of S bytes, SBO to the next 8 rows;  none: rows of 16 bytes, LBO to
//   the
//               next 8 k
//   dense rows  k, row r:   k % 8 rows of S bytes, SBO to the next 8 k, LBO to the next S / 2 rows;
//               none: LBO to the next 8 k, SBO to the next 8 rows               PTX ISA, "Matrix descriptor"
#include <algorithm>
#include <bit>

#include "tools/vgpu/machine/memory_modifiers.h"
#include "tools/vgpu/machine/numbers.h"
#include "tools/vgpu/machine/tensor_map.h"

namespace vgpu {
namespace {

enum WgmmaFlag : uint16_t { A_ROWS = 1, B_ROWS = 2, A_NEGATED = 4, B_NEGATED = 8, HALF = 16 };

struct Operand {
    uint32_t address, lead, stride, swizzle;
    bool rows; // dense rows instead of dense k
    explicit Operand(uint64_t d, bool rows)
        : address(uint32_t(d & 0x3fff) << 4), lead(uint32_t(d >> 16 & 0x3fff) << 4),
          stride(uint32_t(d >> 32 & 0x3fff) << 4), rows(rows) {
        constexpr uint32_t SWIZZLES[] = {0, 128, 64, 32};
        swizzle = SWIZZLES[d >> 62];
    }
    /// Of the 16 bytes that hold element (r, k).
    uint32_t chunk(uint32_t r, uint32_t k) const {
        uint32_t at = address;
        if (!rows && swizzle)
            at += r / 8 * stride + r % 8 * swizzle + k * 2;
        else if (!rows)
            at += r / 8 * stride + r % 8 * 16 + k / 8 * lead;
        else if (swizzle)
            at += k / 8 * stride + k % 8 * swizzle + r / (swizzle / 2) * lead + r % (swizzle / 2) * 2;
        else
            at += k / 8 * lead + k % 8 * 16 + r / 8 * stride;
        return swizzled(at & ~15u, swizzle);
    }
};

/// Rows first .. first + count of an operand as floats, out[k][row], read by accesses of up to 32 chunks.
void read(Warp& w, const Op& op, const Operand& o, uint32_t first, uint32_t count, bool half, float* out,
          uint32_t pitch) {
    uint32_t chunks = count * 2, along = o.rows ? count / 8 : 2; // chunks of a row of memory
    for (uint32_t begin = 0; begin < chunks; begin += 32) {
        uint32_t n = std::min(32u, chunks - begin);
        uint64_t address[32] = {};
        std::byte* host[32];
        for (uint32_t i = 0; i < n; i++) {
            uint32_t c = begin + i, line = c / along, part = c % along * 8;
            address[i] = o.rows ? o.chunk(first + part, line) : o.chunk(first + line, part);
        }
        uint32_t good = translate(w, op, Memory{.space = Space::shared}, Kind::load, 16,
                                  n == 32 ? ~0u : (1u << n) - 1, address, host);
        for (uint32_t m = good; m; m &= m - 1) {
            uint32_t i = lowest(m), c = begin + i, line = c / along, part = c % along * 8;
            uint16_t element[8];
            std::memcpy(element, host[i], 16);
            for (uint32_t e = 0; e < 8; e++) {
                float x = half ? to_float(Half{element[e]}) : to_float(Bf16{element[e]});
                if (o.rows)
                    out[line * pitch + part + e] = x;
                else
                    out[(part + e) * pitch + line] = x;
            }
        }
    }
}

void multiply(Warp& w, const PendingProduct& p) {
    const Op& op = *p.op;
    const Extra& e = *op.extra;
    auto N = uint32_t(e.value[0]);
    bool half = op.flags & HALF;
    float a[16][16], b[16][256]; // [k][row], [k][column]
    if (p.a_in_registers) {
        for (uint32_t j = 0; j < 4; j++) {
            for (uint32_t i = 0; i < 32; i++) {
                uint32_t row = i / 4 + 8 * (j & 1), k = 8 * (j / 2) + 2 * (i % 4), v = p.a[j][i];
                a[k][row] = half ? to_float(Half{uint16_t(v)}) : to_float(Bf16{uint16_t(v)});
                a[k + 1][row] = half ? to_float(Half{uint16_t(v >> 16)}) : to_float(Bf16{uint16_t(v >> 16)});
            }
        }
    } else {
        read(w, op, Operand(p.descriptor_a, op.flags & A_ROWS), w.id.number % 4 * 16, 16, half, &a[0][0], 16);
    }
    read(w, op, Operand(p.descriptor_b, op.flags & B_ROWS), 0, N, half, &b[0][0], 256);
    float sign = bool(op.flags & A_NEGATED) != bool(op.flags & B_NEGATED) ? -1.0f : 1.0f;
    Numerics numerics = w.block->launch->numerics;
    for (uint32_t n = 0; n < N; n++) {
        float* d[2]; // rows 0 to 7 and 8 to 15 of the column: lanes 4 g + t
        for (uint32_t h = 0; h < 2; h++)
            d[h] = w.at<float>(e.registers[n / 8 * 4 + h * 2 + (n & 1)]) + n % 8 / 2;
        float c[16];
        for (uint32_t r = 0; r < 16; r++) c[r] = p.accumulate ? d[r / 8][4 * (r % 8)] : 0.0f;
        if (numerics == Numerics::sequential) {
            for (int k = 0; k < 16; k++) {
                for (uint32_t r = 0; r < 16; r++) c[r] += sign * a[k][r] * b[k][n];
            }
        } else {
            for (uint32_t r = 0; r < 16; r++) {
                double sum = 0;
                for (int k = 0; k < 16; k++) sum += double(sign * a[k][r]) * b[k][n];
                c[r] =
                    to_f32(sum_to_odd(sum, c[r]), numerics == Numerics::exact ? Round::nearest : Round::zero);
            }
        }
        for (uint32_t r = 0; r < 16; r++) d[r / 8][4 * (r % 8)] = c[r];
    }
}

/// r: descriptor a (or none), descriptor b, scale-d.  registers: D, then A.
void issue(Warp& w, const Op& op, uint32_t) {
    const Extra& e = *op.extra;
    w.products.emplace_back();
    PendingProduct& p = w.products.back();
    p.op = &op, p.group = w.product_groups;
    p.a_in_registers = op.r[0] == NO_REGISTER;
    if (p.a_in_registers) {
        for (size_t j = 0; j < 4; j++)
            std::memcpy(p.a[j], w.at<uint32_t>(e.registers[size_t(e.value[0]) / 2 + j]), 128);
    } else {
        p.descriptor_a = w.at<uint64_t>(op.r[0])[0];
    }
    p.descriptor_b = w.at<uint64_t>(op.r[1])[0];
    p.accumulate = w.predicate(op.r[2]) & 1;
}
void commit(Warp& w, const Op&, uint32_t) { w.product_groups++; }
void wait(Warp& w, const Op& op, uint32_t) {
    size_t done = 0;
    while (done < w.products.size() && int64_t(w.products[done].group) < int64_t(w.product_groups) - op.value)
        multiply(w, w.products[done++]);
    w.products.erase(w.products.begin(), w.products.begin() + ptrdiff_t(done));
}
void fence(Warp&, const Op&, uint32_t) {}

void decode_product(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    std::string_view shape = m.prefixed("m64n");
    uint32_t n = 0;
    for (char c : shape.substr(std::min<size_t>(4, shape.size()))) {
        if (c < '0' || c > '9') break;
        n = n * 10 + uint32_t(c - '0');
    }
    if (!shape.ends_with("k16") || n == 0 || n % 8 || n > 256) d.fail("unknown shape");
    bool half = m.take("f16");
    if (!m.take("f32") || (half ? !m.take("f16") : !(m.take("bf16") && m.take("bf16"))))
        d.fail("only f32 sums of f16 or bf16 are known");
    d.want_operands(i, 6, 8); // D, A, B, scale-d, sign a, sign b[, transposed a][, transposed b]
    std::vector<int32_t> registers;
    for (const ptx::Operand& o : i.operands[0].list) registers.push_back(d.destination(o, 'f'));
    if (registers.size() != n / 2) d.fail("D has another number of registers than the shape needs");
    bool in_registers = i.operands[1].kind == ptx::Operand::vector;
    int32_t a = NO_REGISTER;
    if (in_registers) {
        for (const ptx::Operand& o : i.operands[1].list) registers.push_back(d.source(o, 'w'));
        if (registers.size() != n / 2 + 4) d.fail("A has 4 registers");
    } else {
        a = d.source(i.operands[1], 'x');
    }
    int32_t b = d.source(i.operands[2], 'x'), scale = d.source(i.operands[3], 'p');
    uint16_t flags = half ? HALF : 0;
    if (d.literal(i.operands[4]) < 0) flags |= A_NEGATED;
    if (d.literal(i.operands[5]) < 0) flags |= B_NEGATED;
    size_t next = 6;
    if (!in_registers && next < i.operands.size() && d.literal(i.operands[next++])) flags |= A_ROWS;
    if (next < i.operands.size() && d.literal(i.operands[next])) flags |= B_ROWS;
    Op& op = d.emit(issue, i, Flow::collective);
    Extra& e = d.extra(op);
    e.registers = std::move(registers), e.value[0] = n;
    op.r[0] = a, op.r[1] = b, op.r[2] = scale, op.flags = flags;
}

void decode_wgmma(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    std::string_view kind = m.one_of({"mma_async", "fence", "commit_group", "wait_group"});
    if (!m.take("sync") || !m.take("aligned")) d.fail("only .sync.aligned is known");
    if (kind == "mma_async") return decode_product(d, i, m);
    if (kind == "wait_group") d.want_operands(i, 1, 1);
    Op& op = d.emit(kind == "fence" ? fence : kind == "commit_group" ? commit : wait, i, Flow::collective);
    if (kind == "wait_group") op.value = d.literal(i.operands[0]);
    if (kind.empty()) d.fail("unknown form");
}

} // namespace

void add_wgmma(Table& t) { t.decode("wgmma", decode_wgmma); }

} // namespace vgpu
