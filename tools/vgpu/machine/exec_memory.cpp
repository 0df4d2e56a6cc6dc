// ld, st, prefetch.
#include "tools/vgpu/machine/memory_modifiers.h"

namespace vgpu {

Memory memory_of(Modifiers& m) {
    Memory r;
    std::string_view order =
        m.one_of({"weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "mmio"});
    r.order = order == "relaxed" || order == "mmio" ? Order::relaxed
              : order == "acquire"                  ? Order::acquire
              : order == "release"                  ? Order::release
              : order == "acq_rel"                  ? Order::acq_rel
              : order == "volatile"                 ? Order::volatile_
                                                    : Order::weak;
    std::string_view scope = m.one_of({"cta", "cluster", "gpu", "sys"});
    r.scope = scope == "cta"       ? Scope::cta
              : scope == "cluster" ? Scope::cluster
              : scope == "sys"     ? Scope::system
                                   : Scope::gpu;
    std::string_view space = m.one_of({"global", "shared", "shared::cta", "shared::cluster", "local", "const",
                                       "param", "param::entry", "param::func"});
    r.generic = space.empty();
    r.cluster = space == "shared::cluster";
    r.parameter = space.starts_with("param");
    r.space = space.starts_with("shared") ? Space::shared
              : space == "local"          ? Space::local
              : space == "const"          ? Space::constant
                                          : Space::global;
    m.one_of({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
    m.take("nc");
    m.prefixed("L1::");
    m.prefixed("L2::evict");
    m.take("L2::cache_hint");
    m.prefixed("L2::");
    return r;
}

uint32_t bytes_of_type(std::string_view type) {
    if (type == "b128") return 16;
    if (type.empty() || std::string_view("busf").find(type[0]) == std::string_view::npos) return 0;
    std::string_view bits = type.substr(1);
    return bits == "8" ? 1 : bits == "16" ? 2 : bits == "32" ? 4 : bits == "64" ? 8 : 0;
}

namespace {

/// Whether the lanes are all there and their data lies side by side.
bool side_by_side(std::byte** host, uint32_t lanes, uint32_t bytes) {
    if (lanes != ~0u) return false;
    bool yes = true;
    for (int i = 0; i < 32; i++) yes &= host[i] == host[0] + uint64_t(bytes) * uint32_t(i);
    return yes;
}

/// T as it lies in memory, R as the register holds it. r[0]: address; Extra::registers: the vector.
template <class T, class R> void load(Warp& w, const Op& op, uint32_t mask) {
    const Memory& m = op.extra->memory;
    const auto& to = op.extra->registers;
    uint64_t address[32];
    std::byte* host[32];
    addresses(w, m, op.r[0], address);
    uint32_t bytes = uint32_t(sizeof(T)) * m.count;
    uint32_t good = translate(w, op, m, Kind::load, bytes, mask, address, host);
    if (m.count == 1 && side_by_side(host, good, bytes)) {
        T v[32];
        std::memcpy(v, host[0], sizeof v);
        R* d = w.at<R>(to[0]);
        for (int i = 0; i < 32; i++) d[i] = R(v[i]);
        return;
    }
    for (uint32_t k = 0; k < m.count; k++) {
        R* d = w.at<R>(to[k]);
        if (good == ~0u) {
            for (int i = 0; i < 32; i++) {
                T v;
                std::memcpy(&v, host[i] + k * sizeof(T), sizeof(T));
                d[i] = R(v);
            }
            continue;
        }
        for (uint32_t rest = mask; rest; rest &= rest - 1) {
            uint32_t i = lowest(rest);
            T v = 0;
            if (good >> i & 1) std::memcpy(&v, host[i] + k * sizeof(T), sizeof(T));
            d[i] = R(v);
        }
    }
}

template <class T, class R> void store(Warp& w, const Op& op, uint32_t mask) {
    const Memory& m = op.extra->memory;
    const auto& from = op.extra->registers;
    uint64_t address[32];
    std::byte* host[32];
    T data[32 * 8]; // lane after lane
    addresses(w, m, op.r[0], address);
    for (uint32_t k = 0; k < m.count; k++) {
        const R* s = w.at<R>(from[k]);
        for (uint32_t i = 0; i < 32; i++) data[i * m.count + k] = T(s[i]);
    }
    uint32_t bytes = uint32_t(sizeof(T)) * m.count;
    const std::byte* value = reinterpret_cast<const std::byte*>(data);
    uint32_t good = translate(w, op, m, Kind::store, bytes, mask, address, host, value);
    if (side_by_side(host, good, bytes)) {
        std::memcpy(host[0], data, 32 * bytes);
        return;
    }
    for (uint32_t rest = good; rest; rest &= rest - 1)
        std::memcpy(host[lowest(rest)], value + lowest(rest) * bytes, bytes);
}

template <class T, class R> Exec pick(bool loads) { return loads ? load<T, R> : store<T, R>; }
template <class T> Exec pick_register(bool loads, uint32_t width) {
    if (width < sizeof(T)) return nullptr;
    if constexpr (sizeof(T) <= 2) {
        if (width == 2) return pick<T, uint16_t>(loads);
    }
    if constexpr (sizeof(T) <= 4) {
        if (width == 4) return pick<T, uint32_t>(loads);
    }
    return width == 8 ? pick<T, uint64_t>(loads) : nullptr;
}

Exec access_of(bool loads, std::string_view type, uint32_t width) {
    bool sign = type[0] == 's' && loads;
    switch (bytes_of_type(type)) {
    case 1: return sign ? pick_register<int8_t>(loads, width) : pick_register<uint8_t>(loads, width);
    case 2: return sign ? pick_register<int16_t>(loads, width) : pick_register<uint16_t>(loads, width);
    case 4: return sign ? pick_register<int32_t>(loads, width) : pick_register<uint32_t>(loads, width);
    case 8: return pick_register<uint64_t>(loads, width);
    default: return nullptr;
    }
}

/// A kernel parameter at a known place: the same for all lanes. value: offset; r: destination.
template <class T, class R> void load_parameter(Warp& w, const Op& op, uint32_t mask) {
    T v;
    std::memcpy(&v, w.block->launch->parameters.data() + op.value, sizeof v);
    R* d = w.at<R>(op.r[0]);
    for (int i = 0; i < 32; i++) d[i] = mask >> i & 1 ? R(v) : d[i];
}
template <class T> Exec load_parameter_into(uint32_t width) {
    return width == 2   ? load_parameter<T, uint16_t>
           : width == 4 ? load_parameter<T, uint32_t>
                        : load_parameter<T, uint64_t>;
}
bool known_parameter(Decoder& d, const ptx::Instruction& i, std::string_view type,
                     const std::vector<const ptx::Operand*>& parts) {
    const ptx::Operand& base = i.operands[1].list.at(0);
    if (base.kind != ptx::Operand::variable || !d.is_kernel_parameter(*base.var)) return false;
    uint32_t bytes = bytes_of_type(type);
    uint64_t offset = d.parameter_offset(*base.var) + uint64_t(base.value);
    if (uint64_t(base.value) + bytes * parts.size() > base.var->bytes)
        d.fail("read behind the end of a parameter");
    for (size_t k = 0; k < parts.size(); k++) {
        uint32_t width;
        int32_t to = d.destination_any(*parts[k], bytes, width);
        bool sign = type[0] == 's';
        Exec exec =
            bytes == 1   ? (sign ? load_parameter_into<int8_t>(width) : load_parameter_into<uint8_t>(width))
            : bytes == 2 ? (sign ? load_parameter_into<int16_t>(width) : load_parameter_into<uint16_t>(width))
            : bytes == 4 ? (sign ? load_parameter_into<int32_t>(width) : load_parameter_into<uint32_t>(width))
                         : load_parameter_into<uint64_t>(width);
        Op& op = d.emit(exec, i);
        op.r[0] = to, op.value = int64_t(offset + k * bytes);
    }
    return true;
}

void decode_access(Decoder& d, const ptx::Instruction& i, Modifiers& m, bool loads) {
    Memory memory = memory_of(m);
    std::string_view vector = m.one_of({"v2", "v4", "v8"});
    std::string_view type = m.first();
    if (!bytes_of_type(type) || type == "b128") d.fail("unknown type '." + std::string(type) + "'");
    d.want_operands(i, 2, 3); // the third is a cache policy
    const ptx::Operand &data = i.operands[loads ? 0 : 1], &place = i.operands[loads ? 1 : 0];
    std::vector<const ptx::Operand*> parts;
    if (data.kind == ptx::Operand::vector) {
        for (const ptx::Operand& o : data.list) parts.push_back(&o);
    } else {
        parts.push_back(&data);
    }
    memory.count = vector.empty() ? 1 : uint32_t(vector[1] - '0');
    memory.bytes = bytes_of_type(type);
    if (parts.size() != memory.count) d.fail("the vector has another length than the opcode says");
    if (place.kind != ptx::Operand::address) d.fail("expected an address in []");
    if (memory.parameter && loads && known_parameter(d, i, type, parts)) return;
    std::vector<int32_t> registers;
    uint32_t width = 0;
    for (const ptx::Operand* o : parts) {
        uint32_t one;
        uint32_t otherwise = memory.bytes < 2 ? 2 : memory.bytes;
        registers.push_back(loads ? d.destination_any(*o, otherwise, one) : d.source_any(*o, otherwise, one));
        if (o->kind == ptx::Operand::none) continue;
        if (width && width != one) d.fail("registers of a vector have different widths");
        width = one;
    }
    Exec exec = access_of(loads, type, width ? width : memory.bytes < 2 ? 2 : memory.bytes);
    if (!exec) d.fail("a register is too narrow");
    int32_t base = d.address(place, memory);
    Op& op = d.emit(exec, i);
    Extra& e = d.extra(op);
    e.memory = memory, e.registers = std::move(registers);
    op.r[0] = base;
}

/// Hints: nothing happens.
void decode_hint(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    while (!m.first().empty()) {
    }
}

} // namespace

void add_memory(Table& t) {
    t.decode("ld", [](Decoder& d, const ptx::Instruction& i, Modifiers& m) { decode_access(d, i, m, true); });
    t.decode("ldu",
             [](Decoder& d, const ptx::Instruction& i, Modifiers& m) { decode_access(d, i, m, true); });
    t.decode("st",
             [](Decoder& d, const ptx::Instruction& i, Modifiers& m) { decode_access(d, i, m, false); });
    for (const char* hint : {"prefetch", "prefetchu", "discard", "applypriority", "createpolicy"})
        t.decode(hint, decode_hint);
}

} // namespace vgpu
