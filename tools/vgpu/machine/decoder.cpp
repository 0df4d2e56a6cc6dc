#include "tools/vgpu/machine/decoder.h"

#include <algorithm>
#include <bit>

namespace vgpu {
namespace {

constexpr uint32_t align_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

Unit unit_of(std::string_view name) {
    for (const char* n : {"mma", "wgmma"}) {
        if (name == n) return Unit::tensor;
    }
    for (const char* n : {"ex2", "lg2", "sin", "cos", "tanh", "rcp", "rsqrt", "sqrt"}) {
        if (name == n) return Unit::special;
    }
    return name == "shfl" ? Unit::shuffle : Unit::other;
}
bool is_memory(std::string_view name, std::string_view opcode) {
    for (const char* n : {"ld", "ldu", "st", "atom", "red", "ldmatrix", "stmatrix"}) {
        if (name == n) return !opcode.starts_with("ld.param");
    }
    return opcode.starts_with("cp.async.ca") || opcode.starts_with("cp.async.cg");
}

} // namespace

uint32_t width_of(char letter) {
    switch (letter) {
    case 'p': return 0;
    case 'h': return 2;
    case 'w':
    case 'f': return 4;
    default: return 8;
    }
}

uint64_t literal_bits(const ptx::Operand& o, char letter) {
    if (o.kind == ptx::Operand::float64 && letter == 'f')
        return std::bit_cast<uint32_t>(float(std::bit_cast<double>(o.value)));
    if (o.kind == ptx::Operand::float32 && letter == 'd')
        return std::bit_cast<uint64_t>(double(std::bit_cast<float>(uint32_t(o.value))));
    uint32_t width = width_of(letter);
    if (width == 0) return o.value ? ~0u : 0u;
    return width == 8 ? uint64_t(o.value) : uint64_t(o.value) & ((1ull << (8 * width)) - 1);
}

void Decoder::fail(const std::string& what) const { throw Error(what); }

void Decoder::entry(const ptx::Function& f) {
    code.kernel = f.name;
    code.sites.push_back({code.kernel.c_str(), 0, ""});
    for (const ptx::Variable* p : f.parameters) {
        uint32_t offset = align_up(code.parameter_bytes, std::max(p->align, 1u));
        parameters[p] = offset;
        code.parameter_bytes = offset + uint32_t(p->bytes);
    }
    code.register_bytes = 64; // the condition code, and a null register
    dynamic_align = 1;
    place_shared(f);
    code.shared_bytes = align_up(code.shared_bytes, dynamic_align);
    Frame frame{&f};
    uint32_t alive = 0;
    frame.registers = place_registers(f, code.register_bytes, alive);
    code.registers_alive = alive;
    frames.push_back(std::move(frame));
    body();
    frames.pop_back();
    ptx::Instruction end;
    end.opcode = "exit";
    end.line = f.body.empty() ? f.line : f.body.back().line;
    emit(nullptr, end, Flow::exit);
    // Room for reading a whole vector behind the last register.
    code.register_bytes = align_up(code.register_bytes, 64) + 256;
}

/// Places the shared variables that a function and those it calls use; dynamic shared memory (the extern
/// arrays, all at the same place) comes behind them.
void Decoder::place_shared(const ptx::Function& f) {
    if (!shared_seen.insert(&f).second) return;
    auto visit = [&](auto& self, const ptx::Operand& o) -> void {
        for (const ptx::Operand& inner : o.list) self(self, inner);
        if (o.kind == ptx::Operand::function) {
            auto called = globals.functions.find(o.name);
            if (called != globals.functions.end()) place_shared(*called->second);
        }
        if (o.kind != ptx::Operand::variable || o.var->space != ptx::StateSpace::shared) return;
        if (o.var->bytes == 0) {
            dynamic_align = std::max({dynamic_align, o.var->align, 16u});
        } else if (!shareds.contains(o.var)) {
            uint32_t offset = align_up(code.shared_bytes, std::max(o.var->align, 1u));
            shareds[o.var] = offset;
            code.shared_bytes = offset + uint32_t(o.var->bytes);
        }
    };
    for (const ptx::Instruction& i : f.body) {
        for (const ptx::Operand& o : i.operands) visit(visit, o);
    }
}

/// The instructions of the function on top of `frames`.
void Decoder::body() {
    const ptx::Function& f = *frames.back().function;
    for (const ptx::Instruction& i : f.body) {
        frames.back().first_op.push_back(next_op());
        now = &i;
        try {
            instruction(i);
        } catch (const Error& e) {
            if (std::string_view(e.what()).starts_with("PTX line")) throw;
            throw Error("PTX line " + std::to_string(i.line) + " (" +
                        (i.source ? module.sources[i.source] : "no source line") + "): " + e.what());
        }
    }
    Frame& frame = frames.back();
    frame.first_op.push_back(next_op());
    auto op_of = [&](int32_t label) {
        return label < 0 ? frame.first_op.back() : frame.first_op[f.labels[size_t(label)]];
    };
    for (const Frame::Jump& j : frame.jumps) code.ops[j.op].target = op_of(j.label);
    for (auto [index, list] : frame.tables) {
        for (int32_t label : f.branches[size_t(list)]) code.branch_tables[index].push_back(op_of(label));
    }
}

void Decoder::instruction(const ptx::Instruction& i) {
    if (const Implementation* found = table().exact(i.opcode)) return simple(i, *found);
    std::string_view word;
    Decode decode = table().by_word(i.opcode, word);
    if (!decode) fail("unknown opcode '" + std::string(i.opcode) + "'");
    Modifiers rest(i.opcode.substr(std::min(word.size() + 1, i.opcode.size())));
    try {
        decode(*this, i, rest);
        rest.finish();
    } catch (const Error& e) {
        if (std::string_view(e.what()).starts_with("PTX line")) throw;
        throw Error("'" + std::string(i.opcode) + "': " + e.what());
    }
}

void Decoder::simple(const ptx::Instruction& i, const Implementation& what) {
    size_t count = std::char_traits<char>::length(what.operands);
    want_operands(i, count, count);
    int32_t r[6] = {NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER};
    uint16_t flags = 0;
    for (size_t k = 0; k < count; k++) {
        r[k] = k ? source(i.operands[k], what.operands[k]) : destination(i.operands[k], what.operands[k]);
        if (i.operands[k].negated) flags |= uint16_t(1u << k);
    }
    Op& op = emit(what.exec, i, what.flow);
    std::copy(std::begin(r), std::end(r), op.r);
    op.flags = flags;
}

Op& Decoder::emit(Exec exec, const ptx::Instruction& i, Flow flow) {
    Op op;
    op.exec = exec, op.flow = flow;
    if (i.guard >= 0) op.guard = frames.back().registers[size_t(i.guard)], op.guard_negated = i.guard_negated;
    op.site = site_of(i);
    std::string_view name = i.opcode.substr(0, i.opcode.find('.'));
    op.unit = unit_of(name);
    op.memory = exec && is_memory(name, i.opcode);
    code.ops.push_back(op);
    return code.ops.back();
}

Extra& Decoder::extra(Op& op) {
    code.extras.push_back(std::make_unique<Extra>());
    op.extra = code.extras.back().get();
    return *code.extras.back();
}

uint32_t Decoder::site_of(const ptx::Instruction& i) {
    auto [entry, added] = sites_by_line.try_emplace(std::pair(i.line, i.source), uint32_t(code.sites.size()));
    if (added) {
        code.strings.push_back(std::make_unique<std::string>(module.sources[i.source]));
        code.sites.push_back({code.kernel.c_str(), i.line, code.strings.back()->c_str()});
    }
    return entry->second;
}

void Decoder::want_operands(const ptx::Instruction& i, size_t least, size_t most) const {
    size_t n = i.operands.size();
    if (n < least || n > most)
        fail("'" + std::string(i.opcode) + "' has " + std::to_string(n) + " operands, expected " +
             std::to_string(least) + (most > least ? " to " + std::to_string(most) : ""));
}

int32_t Decoder::allocate(uint32_t width) {
    uint32_t bytes = width ? 32 * width : 4;
    code.register_bytes = align_up(code.register_bytes, width ? 64 : 4);
    int32_t offset = int32_t(code.register_bytes);
    code.register_bytes += bytes;
    return offset;
}
int32_t Decoder::scratch(uint32_t width) { return allocate(width); }

int32_t Decoder::constant(uint64_t bits, uint32_t width) {
    auto [entry, added] = constants.try_emplace({bits, width}, 0);
    if (added) {
        entry->second = allocate(width);
        code.constants.push_back({uint32_t(entry->second), width, bits});
    }
    return entry->second;
}

int64_t Decoder::literal(const ptx::Operand& o) const {
    if (o.kind != ptx::Operand::integer) fail("expected a literal number");
    return o.value;
}

int32_t Decoder::source_any(const ptx::Operand& o, uint32_t otherwise, uint32_t& width) {
    width = otherwise;
    char letter = otherwise == 0 ? 'p' : otherwise == 2 ? 'h' : otherwise == 4 ? 'w' : 'x';
    switch (o.kind) {
    case ptx::Operand::reg:
        width = uint32_t(frames.back().function->registers[size_t(o.index)].width);
        return frames.back().registers[size_t(o.index)];
    case ptx::Operand::special: return special(o.name, width);
    case ptx::Operand::integer:
    case ptx::Operand::float32:
    case ptx::Operand::float64: return constant(literal_bits(o, letter), width);
    case ptx::Operand::variable: return constant(variable_address(*o.var) + uint64_t(o.value), width);
    case ptx::Operand::none: return scratch(width);
    default: fail("operand '" + std::string(o.name) + "' is of no use here");
    }
}

int32_t Decoder::source(const ptx::Operand& o, char letter) {
    if (o.kind == ptx::Operand::integer || o.kind == ptx::Operand::float32 || o.kind == ptx::Operand::float64)
        return constant(literal_bits(o, letter), width_of(letter));
    uint32_t width;
    int32_t offset = source_any(o, width_of(letter), width);
    if (width != width_of(letter))
        fail("register '" + std::string(o.name) + "' has " + std::to_string(width * 8) + " bits, expected " +
             std::to_string(width_of(letter) * 8));
    return offset;
}

int32_t Decoder::destination_any(const ptx::Operand& o, uint32_t otherwise, uint32_t& width) {
    if (o.kind == ptx::Operand::none) return width = otherwise, scratch(otherwise);
    if (o.kind != ptx::Operand::reg) fail("the result has to be a register");
    return source_any(o, otherwise, width);
}

int32_t Decoder::destination(const ptx::Operand& o, char letter) {
    if (o.kind == ptx::Operand::none) return scratch(width_of(letter));
    if (o.kind != ptx::Operand::reg) fail("the result has to be a register");
    return source(o, letter);
}

int32_t Decoder::second_destination(const ptx::Operand& o) const {
    return o.second < 0 ? NO_REGISTER : frames.back().registers[size_t(o.second)];
}

uint32_t Decoder::local_offset(const ptx::Variable& v) {
    if (auto bound = frames.back().bound.find(&v); bound != frames.back().bound.end()) return bound->second;
    auto [entry, added] = locals.try_emplace(&v, 0);
    if (added) {
        entry->second = align_up(code.local_bytes, std::max(v.align, 1u));
        code.local_bytes = entry->second + uint32_t(v.bytes);
    }
    return entry->second;
}

/// As a mov gives it: the offset in its window, of parameters the generic address.
uint64_t Decoder::variable_address(const ptx::Variable& v) {
    switch (v.space) {
    case ptx::StateSpace::shared: return v.bytes == 0 ? code.shared_bytes : shareds.at(&v);
    case ptx::StateSpace::local: return local_offset(v);
    case ptx::StateSpace::parameter: {
        if (is_kernel_parameter(v)) return PARAMETER_WINDOW + parameter_offset(v);
        return LOCAL_WINDOW + local_offset(v);
    }
    default: {
        auto found = globals.address.find(v.name);
        if (found == globals.address.end())
            fail("variable '" + v.name + "' is declared but not defined in this module");
        return found->second;
    }
    }
}

int32_t Decoder::address(const ptx::Operand& o, Memory& m) {
    if (o.kind != ptx::Operand::address) fail("expected an address in []");
    const ptx::Operand& base = o.list[0];
    m.offset = 0, m.wide_address = true;
    uint32_t width = 8;
    int32_t offset;
    if (base.kind == ptx::Operand::reg) {
        m.offset = base.value;
        offset = source_any(base, 8, width);
    } else if (base.kind == ptx::Operand::variable) {
        offset = constant(variable_address(*base.var) + uint64_t(base.value), 8);
    } else {
        offset = constant(uint64_t(literal(base)), 8);
    }
    if (width != 4 && width != 8) fail("an address has 32 or 64 bits");
    m.wide_address = width == 8;
    return offset;
}

const ptx::Function& Decoder::function_named(std::string_view name) const {
    auto found = globals.functions.find(name);
    if (found == globals.functions.end()) fail("function '" + std::string(name) + "' is not in this module");
    return *found->second;
}

void Decoder::call(const ptx::Function& f, const std::vector<const ptx::Variable*>& arguments,
                   const std::vector<const ptx::Variable*>& results) {
    for (const Frame& frame : frames) {
        if (frame.function == &f) fail("recursion (of " + f.name + ") is not supported");
    }
    if (arguments.size() != f.parameters.size() || results.size() != f.returns.size())
        fail("call of " + f.name + " with another number of arguments than it has");
    Frame frame{&f};
    for (size_t k = 0; k < arguments.size(); k++) frame.bound[f.parameters[k]] = local_offset(*arguments[k]);
    for (size_t k = 0; k < results.size(); k++) frame.bound[f.returns[k]] = local_offset(*results[k]);
    code.register_bytes = align_up(code.register_bytes, 64);
    uint32_t alive = 0;
    frame.registers = place_registers(f, code.register_bytes, alive);
    const ptx::Instruction* caller = now;
    frames.push_back(std::move(frame));
    body();
    frames.pop_back();
    now = caller;
}

void Decoder::branch_to_label(uint32_t op, int32_t label) { frames.back().jumps.push_back({op, label}); }
void Decoder::branch_to_end(uint32_t op) { frames.back().jumps.push_back({op, -1}); }
void Decoder::table_of_labels(uint32_t op, int32_t list) {
    code.ops[op].target = uint32_t(code.branch_tables.size());
    frames.back().tables.push_back({uint32_t(code.branch_tables.size()), list});
    code.branch_tables.emplace_back();
}

namespace {
struct SpecialName {
    std::string_view name;
    Special which;
    uint32_t width = 4;
};
constexpr SpecialName SPECIALS[] = {
    {"%tid.x", Special::tid_x},
    {"%tid.y", Special::tid_y},
    {"%tid.z", Special::tid_z},
    {"%ntid.x", Special::ntid_x},
    {"%ntid.y", Special::ntid_y},
    {"%ntid.z", Special::ntid_z},
    {"%ctaid.x", Special::ctaid_x},
    {"%ctaid.y", Special::ctaid_y},
    {"%ctaid.z", Special::ctaid_z},
    {"%nctaid.x", Special::nctaid_x},
    {"%nctaid.y", Special::nctaid_y},
    {"%nctaid.z", Special::nctaid_z},
    {"%laneid", Special::laneid},
    {"%warpid", Special::warpid},
    {"%nwarpid", Special::nwarpid},
    {"%smid", Special::smid},
    {"%nsmid", Special::nsmid},
    {"%gridid", Special::gridid, 8},
    {"%lanemask_eq", Special::lanemask_eq},
    {"%lanemask_le", Special::lanemask_le},
    {"%lanemask_lt", Special::lanemask_lt},
    {"%lanemask_ge", Special::lanemask_ge},
    {"%lanemask_gt", Special::lanemask_gt},
    {"%dynamic_smem_size", Special::dynamic_smem_size},
    {"%total_smem_size", Special::total_smem_size},
    {"%aggr_smem_size", Special::aggr_smem_size},
    {"%clusterid.x", Special::clusterid_x},
    {"%clusterid.y", Special::clusterid_y},
    {"%clusterid.z", Special::clusterid_z},
    {"%nclusterid.x", Special::nclusterid_x},
    {"%nclusterid.y", Special::nclusterid_y},
    {"%nclusterid.z", Special::nclusterid_z},
    {"%cluster_ctaid.x", Special::cluster_ctaid_x},
    {"%cluster_ctaid.y", Special::cluster_ctaid_y},
    {"%cluster_ctaid.z", Special::cluster_ctaid_z},
    {"%cluster_nctaid.x", Special::cluster_nctaid_x},
    {"%cluster_nctaid.y", Special::cluster_nctaid_y},
    {"%cluster_nctaid.z", Special::cluster_nctaid_z},
    {"%cluster_ctarank", Special::cluster_ctarank},
    {"%cluster_nctarank", Special::cluster_nctarank},
    {"%is_explicit_cluster", Special::is_explicit_cluster, 0},
};
} // namespace

int32_t Decoder::special(std::string_view name, uint32_t& width) {
    for (const SpecialName& s : SPECIALS) {
        if (s.name != name) continue;
        width = s.width;
        auto [entry, added] = specials.try_emplace(std::string(name), 0);
        if (added) {
            entry->second = allocate(s.width);
            code.specials.push_back({uint32_t(entry->second), s.which});
        }
        return entry->second;
    }
    fail("unknown special register '" + std::string(name) + "'");
}

} // namespace vgpu
