// Branches, calls, ends, barriers, fences; printf and assert of the device.
#include <cstdio>

#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

void nothing(Warp&, const Op&, uint32_t) {}

void decode_bra(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    m.take("uni");
    d.want_operands(i, 1, 1);
    d.emit(nothing, i, Flow::branch);
    d.branch_to_label(d.next_op() - 1, i.operands[0].index);
}
void decode_brx(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (!m.take("idx")) d.fail("only brx.idx is known");
    m.take("uni");
    d.want_operands(i, 2, 2);
    int32_t index = d.source(i.operands[0], 'w');
    d.emit(nothing, i, Flow::indexed).r[1] = index;
    d.table_of_labels(d.next_op() - 1, i.operands[1].index);
}
void decode_ret(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    m.take("uni");
    if (d.in_entry()) {
        d.emit(nothing, i, Flow::exit);
        return;
    }
    d.emit(nothing, i, Flow::branch);
    d.branch_to_end(d.next_op() - 1);
}
void decode_exit(Decoder& d, const ptx::Instruction& i, Modifiers&) { d.emit(nothing, i, Flow::exit); }

void trap(Warp& w, const Op& op, uint32_t mask) {
    complain(w, op, Fault::trap, lowest(mask), "trap: the kernel stops itself");
    w.block->aborted = true;
}

// printf and assert
// -------------------------------------------------------------------------------------------

/// Bytes behind a generic address of a lane.
const std::byte* behind(Warp& w, uint64_t address, uint32_t lane) {
    uint64_t offset = address & ~(255ull << 56);
    if ((address >> 56) == LOCAL_WINDOW >> 56)
        return w.block->local + (uint64_t(w.id.number) * 32 + lane) * w.block->code->local_bytes + offset;
    return reinterpret_cast<const std::byte*>(address);
}
uint64_t argument(Warp& w, int64_t local_offset, uint32_t lane) {
    uint64_t v;
    std::memcpy(&v, behind(w, LOCAL_WINDOW + uint64_t(local_offset), lane), sizeof v);
    return v;
}

/// The text of one call: integers and floats are 4 or 8 bytes, each at its alignment.
std::string formatted(const char* format, const std::byte* values) {
    std::string out;
    size_t at = 0;
    auto next = [&](size_t bytes) {
        at = (at + bytes - 1) / bytes * bytes;
        uint64_t v = 0;
        if (values) std::memcpy(&v, values + at, bytes);
        at += bytes;
        return v;
    };
    for (const char* c = format; *c; c++) {
        if (*c != '%') {
            out += *c;
            continue;
        }
        if (c[1] == '%') {
            out += *++c;
            continue;
        }
        std::string spec = "%";
        bool wide = false;
        for (c++; *c && !std::strchr("diouxXcsfFeEgGaAp", *c); c++) {
            if (*c == '*')
                spec += std::to_string(int32_t(next(4)));
            else if (*c == 'l' || *c == 'z' || *c == 'j' || *c == 't')
                wide = true;
            else if (*c != 'h')
                spec += *c;
        }
        if (!*c) break;
        char text[512];
        if (std::strchr("fFeEgGaA", *c)) {
            std::snprintf(text, sizeof text, (spec + *c).c_str(), std::bit_cast<double>(next(8)));
        } else if (*c == 's' || *c == 'p') {
            std::snprintf(text, sizeof text, (spec + *c).c_str(), reinterpret_cast<void*>(next(8)));
        } else if (wide) {
            std::snprintf(text, sizeof text, (spec + "ll" + *c).c_str(), static_cast<long long>(next(8)));
        } else {
            std::snprintf(text, sizeof text, (spec + *c).c_str(), int32_t(next(4)));
        }
        out += text;
    }
    return out;
}

/// value[0..2]: local offsets of format, values, result.
void print(Warp& w, const Op& op, uint32_t mask) {
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t i = lowest(m);
        uint64_t values = argument(w, op.extra->value[1], i);
        const char* format = reinterpret_cast<const char*>(behind(w, argument(w, op.extra->value[0], i), i));
        std::fputs(formatted(format, values ? behind(w, values, i) : nullptr).c_str(), stdout);
    }
    std::fflush(stdout);
}
/// value[0..2]: message, file, line.
void assert_failed(Warp& w, const Op& op, uint32_t mask) {
    uint32_t i = lowest(mask);
    auto text = [&](int k) {
        return reinterpret_cast<const char*>(behind(w, argument(w, op.extra->value[k], i), i));
    };
    complain(w, op, Fault::trap, i,
             std::string("assertion failed: ") + text(0) + " (" + text(1) + ":" +
                 std::to_string(uint32_t(argument(w, op.extra->value[2], i))) + ")");
    w.block->aborted = true;
}

std::vector<const ptx::Variable*> variables_of(Decoder& d, const ptx::Operand& o) {
    std::vector<const ptx::Variable*> list;
    for (const ptx::Operand& a : o.list) {
        if (a.kind != ptx::Operand::variable) d.fail("arguments of a call have to be .param variables");
        list.push_back(a.var);
    }
    return list;
}

void decode_call(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    m.take("uni");
    std::vector<const ptx::Variable*> results, arguments;
    size_t at = 0;
    if (at < i.operands.size() && i.operands[at].kind == ptx::Operand::arguments)
        results = variables_of(d, i.operands[at++]);
    if (at >= i.operands.size() || i.operands[at].kind != ptx::Operand::function)
        d.fail("calls through a pointer (virtual functions) are not supported");
    std::string_view name = i.operands[at++].name;
    if (at < i.operands.size()) arguments = variables_of(d, i.operands[at++]);
    if (at < i.operands.size()) d.fail("calls through a pointer (virtual functions) are not supported");
    if (name == "vprintf" || name == "__assertfail") {
        Op& op = d.emit(name == "vprintf" ? print : assert_failed, i);
        Extra& e = d.extra(op);
        for (size_t k = 0; k < arguments.size() && k < 4; k++) e.value[k] = d.local_offset(*arguments[k]);
        for (const ptx::Variable* r : results) d.local_offset(*r);
        return;
    }
    const ptx::Function& f = d.function_named(name);
    if (f.declared_only)
        d.fail("function '" + std::string(name) + "' is declared but not defined in this module");
    uint32_t skip = 0;
    if (i.guard >= 0) { // lanes without the guard go around the body
        skip = d.next_op();
        d.emit(nothing, i, Flow::branch).guard_negated = !i.guard_negated;
    }
    d.call(f, arguments, results);
    if (i.guard >= 0) d.jump_here(skip);
}

// Barriers of the block
// -----------------------------------------------------------------------------------------

/// bar.sync id[, threads]; bar.arrive id, threads; bar.red.op d, id[, threads], p.   r: d id threads p
void decode_bar(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    m.take("cta");
    uint16_t flags = i.opcode.starts_with("bar.") || m.take("aligned") ? ALIGNED : 0;
    m.take("aligned");
    bool reduces = m.take("red");
    std::string_view kind = reduces ? m.one_of({"popc", "and", "or"}) : m.one_of({"sync", "arrive"});
    if (kind.empty()) d.fail("unknown barrier");
    if (reduces && !m.take(kind == "popc" ? "u32" : "pred")) d.fail("unknown type");
    if (kind == "arrive") flags |= ARRIVE;
    if (reduces) flags |= kind == "popc" ? REDUCE_POPC : kind == "and" ? REDUCE_AND : REDUCE_OR;
    size_t at = reduces ? 1 : 0, last = i.operands.size() - (reduces ? 1 : 0);
    d.want_operands(i, reduces ? 3 : 1, reduces ? 4 : 2);
    int32_t out = reduces ? d.destination(i.operands[0], kind == "popc" ? 'w' : 'p') : NO_REGISTER;
    int32_t id = d.source(i.operands[at], 'w');
    int32_t count = at + 1 < last ? d.source(i.operands[at + 1], 'w') : NO_REGISTER;
    int32_t p = reduces ? d.source(i.operands.back(), 'p') : NO_REGISTER;
    if (reduces && i.operands.back().negated) flags |= NEGATED;
    Op& op = d.emit(nothing, i, Flow::barrier);
    op.flags = flags, op.r[0] = out, op.r[1] = id, op.r[2] = count, op.r[3] = p;
}

// Fences
// --------------------------------------------------------------------------------------------------------

void fence(Warp& w, const Op& op, uint32_t mask) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (w.block->observer) w.block->observer->fence(w.id, mask, Scope(op.value));
}
void decode_fence(Decoder& d, const ptx::Instruction& i, Modifiers& m) {
    if (m.take("mbarrier_init")) { // fence.mbarrier_init.release.cluster
        m.take("release"), m.take("cluster");
        return;
    }
    if (!m.prefixed("proxy").empty()) { // the async proxies see the same memory here
        while (!m.first().empty()) {
        }
        return;
    }
    m.one_of({"sc", "acq_rel", "acquire", "release"});
    m.prefixed("sync_restrict");
    std::string_view scope = m.one_of({"cta", "cluster", "gpu", "gl", "sys"});
    d.emit(fence, i).value = int64_t(scope == "cta"       ? Scope::cta
                                     : scope == "cluster" ? Scope::cluster
                                     : scope == "sys"     ? Scope::system
                                                          : Scope::gpu);
}

void yield(Warp& w, const Op&, uint32_t) { w.turn_over = true; }

} // namespace

void add_control(Table& t) {
    t.decode("bra", decode_bra);
    t.decode("brx", decode_brx);
    t.decode("ret", decode_ret);
    t.decode("exit", decode_exit);
    t.decode("call", decode_call);
    t.decode("bar", decode_bar);
    t.decode("barrier", decode_bar);
    t.decode("membar", decode_fence);
    t.decode("fence", decode_fence);
    t.decode("nanosleep", [](Decoder& d, const ptx::Instruction& i, Modifiers& m) {
        m.take("u32");
        d.emit(yield, i, Flow::yield);
    });
    t.add("trap", {trap, "", Flow::yield});
    t.add("brkpt", {trap, "", Flow::yield});
    for (const char* hint : {"griddepcontrol", "setmaxnreg", "pmevent"}) {
        t.decode(hint, [](Decoder&, const ptx::Instruction&, Modifiers& m) {
            while (!m.first().empty()) {
            }
        });
    }
}

} // namespace vgpu
