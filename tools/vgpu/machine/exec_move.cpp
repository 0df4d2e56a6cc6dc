// mov (also packing and unpacking), address spaces, clocks.
#include <chrono>

#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

template <class T> void move(Warp& w, const Op& op, uint32_t mask) {
    blend(w.at<T>(op.r[0]), w.at<T>(op.r[1]), mask);
}

/// Parts of a value, `part` bytes each: registers of Extra, the lowest first.
template <class WHOLE, class PART> void pack(Warp& w, const Op& op, uint32_t mask) {
    const auto& parts = op.extra->registers;
    WHOLE v[32] = {};
    for (size_t k = 0; k < parts.size(); k++) {
        const PART* p = w.at<PART>(parts[k]);
        for (int i = 0; i < 32; i++) v[i] |= WHOLE(p[i]) << (8 * sizeof(PART) * k);
    }
    blend(w.at<WHOLE>(op.r[0]), v, mask);
}
template <class WHOLE, class PART> void unpack(Warp& w, const Op& op, uint32_t mask) {
    const auto& parts = op.extra->registers;
    WHOLE v[32];
    std::memcpy(v, w.at<WHOLE>(op.r[0]), sizeof v); // a part may be the same register
    for (size_t k = 0; k < parts.size(); k++) {
        PART p[32];
        for (int i = 0; i < 32; i++) p[i] = PART(v[i] >> (8 * sizeof(PART) * k));
        blend(w.at<PART>(parts[k]), p, mask);
    }
}

void decode_vector(Decoder& d, const ptx::Instruction& i, uint32_t bytes, bool packs) {
    const ptx::Operand& vector = i.operands[packs ? 1 : 0];
    const ptx::Operand& scalar = i.operands[packs ? 0 : 1];
    size_t n = vector.list.size();
    uint32_t part = uint32_t(bytes / n);
    if (part * n != bytes || (part != 2 && part != 4)) d.fail("parts of this width are not known");
    std::vector<int32_t> parts;
    for (const ptx::Operand& o : vector.list) {
        char letter = part == 2 ? 'h' : 'w';
        parts.push_back(packs ? d.source(o, letter) : d.destination(o, letter));
    }
    char letter = bytes == 4 ? 'w' : 'x';
    int32_t whole = packs ? d.destination(scalar, letter) : d.source(scalar, letter);
    Exec exec = bytes == 4  ? (packs ? pack<uint32_t, uint16_t> : unpack<uint32_t, uint16_t>)
                : part == 2 ? (packs ? pack<uint64_t, uint16_t> : unpack<uint64_t, uint16_t>)
                            : (packs ? pack<uint64_t, uint32_t> : unpack<uint64_t, uint32_t>);
    Op& op = d.emit(exec, i);
    d.extra(op).registers = std::move(parts);
    op.r[0] = whole;
}

template <class T> void clock(Warp& w, const Op& op, uint32_t mask) {
    T* d = w.at<T>(op.r[0]);
    for (int i = 0; i < 32; i++) d[i] = mask >> i & 1 ? T(w.warp_instructions * 4) : d[i];
}
void wall_clock(Warp& w, const Op& op, uint32_t mask) {
    uint64_t now = uint64_t(std::chrono::steady_clock::now().time_since_epoch().count());
    uint64_t* d = w.at<uint64_t>(op.r[0]);
    for (int i = 0; i < 32; i++) d[i] = mask >> i & 1 ? now : d[i];
}

void decode_mov(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    std::string_view type = m.first();
    d.want_operands(i, 2, 2);
    uint32_t bytes = type.ends_with("64") ? 8 : type.ends_with("32") ? 4 : type.ends_with("16") ? 2 : 0;
    if (!bytes || std::string_view("busf").find(type[0]) == std::string_view::npos)
        d.fail("unknown type '." + std::string(type) + "'");
    const ptx::Operand &to = i.operands[0], &from = i.operands[1];
    if (from.kind == ptx::Operand::vector || to.kind == ptx::Operand::vector)
        return decode_vector(d, i, bytes, from.kind == ptx::Operand::vector);
    char letter = bytes == 2 ? 'h' : type == "f32" ? 'f' : type == "f64" ? 'd' : bytes == 4 ? 'w' : 'x';
    int32_t out = d.destination(to, letter);
    if (from.kind == ptx::Operand::special &&
        (from.name.starts_with("%clock") || from.name.starts_with("%globaltimer"))) {
        Exec exec = from.name.starts_with("%global") && bytes == 8 ? wall_clock
                    : bytes == 8                                   ? clock<uint64_t>
                                                                   : clock<uint32_t>;
        d.emit(exec, i).r[0] = out;
        return;
    }
    int32_t in;
    if (from.kind == ptx::Operand::special) { // 32-bit ones may be moved to 64 bits and the other way round
        uint32_t width;
        in = d.source_any(from, bytes, width);
        if (width != bytes) {
            Op& op = d.emit(width == 4 ? of<[](uint32_t x) { return uint64_t(x); }>().exec
                                       : of<[](uint64_t x) { return uint32_t(x); }>().exec,
                            i);
            op.r[0] = out, op.r[1] = in;
            return;
        }
    } else {
        uint32_t width;
        in = from.kind == ptx::Operand::variable ? d.source_any(from, bytes, width) : d.source(from, letter);
    }
    Op& op = d.emit(bytes == 2 ? move<uint16_t> : bytes == 4 ? move<uint32_t> : move<uint64_t>, i);
    op.r[0] = out, op.r[1] = in;
}

// Generic addresses
// -------------------------------------------------------------------------------------------

constexpr uint64_t WINDOW_MASK = ~0ull << 56;

void to_generic(Warp& w, const Op& op, uint32_t mask) {
    uint64_t v[32];
    const uint64_t* a = w.at<uint64_t>(op.r[1]);
    for (int i = 0; i < 32; i++) v[i] = (a[i] & WINDOW_MASK) ? a[i] : a[i] | uint64_t(op.value);
    blend(w.at<uint64_t>(op.r[0]), v, mask);
}
void from_generic(Warp& w, const Op& op, uint32_t mask) {
    uint64_t v[32];
    const uint64_t* a = w.at<uint64_t>(op.r[1]);
    for (int i = 0; i < 32; i++) v[i] = a[i] & ~WINDOW_MASK;
    blend(w.at<uint64_t>(op.r[0]), v, mask);
}
void is_space(Warp& w, const Op& op, uint32_t mask) {
    const uint64_t* a = w.at<uint64_t>(op.r[1]);
    uint32_t yes = 0;
    for (int i = 0; i < 32; i++) yes |= uint32_t((a[i] & WINDOW_MASK) == uint64_t(op.value)) << i;
    uint32_t& d = w.predicate(op.r[0]);
    d = (d & ~mask) | (yes & mask);
}

uint64_t window_of(Decoder& d, Modifiers& m) {
    std::string_view space =
        m.one_of({"global", "shared", "shared::cta", "shared::cluster", "local", "const", "param"});
    if (space.empty()) d.fail("no known state space");
    return space.starts_with("shared") ? SHARED_WINDOW
           : space == "local"          ? LOCAL_WINDOW
           : space == "param"          ? PARAMETER_WINDOW
                                       : 0;
}

void decode_cvta(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    bool to = m.take("to");
    m.take("param::entry");
    uint64_t window = window_of(d, m);
    if (!m.take("u64")) d.fail("only .u64 addresses are known");
    d.want_operands(i, 2, 2);
    int32_t out = d.destination(i.operands[0], 'x');
    uint32_t width;
    int32_t in = d.source_any(i.operands[1], 8, width);
    if (width != 8) d.fail("the address has to have 64 bits");
    Exec exec = window == 0 || window == PARAMETER_WINDOW ? move<uint64_t> : to ? from_generic : to_generic;
    Op& op = d.emit(exec, i);
    op.r[0] = out, op.r[1] = in, op.value = int64_t(window);
}

void decode_isspacep(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    uint64_t window = window_of(d, m);
    d.want_operands(i, 2, 2);
    int32_t out = d.destination(i.operands[0], 'p'), in = d.source(i.operands[1], 'x');
    Op& op = d.emit(is_space, i);
    op.r[0] = out, op.r[1] = in, op.value = int64_t(window);
}

} // namespace

void add_move(Table& t) {
    t.decode("mov", decode_mov);
    t.decode("cvta", decode_cvta);
    t.decode("isspacep", decode_isspacep);
}

} // namespace vgpu
