// Decoding: PTX instructions to micro-operations, by one table from opcode names to implementations. Each
// family (exec_*.cpp) enters its opcodes.
#pragma once
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tools/vgpu/machine/lanes.h"
#include "tools/vgpu/ptx/ast.h"

namespace vgpu {

class Decoder;

/// The dot-separated parts behind the first word of an opcode, each of which has to be taken by somebody.
class Modifiers {
public:
    explicit Modifiers(std::string_view opcode);
    bool take(std::string_view name);
    /// Takes the first of these that is there; empty if none is.
    std::string_view one_of(std::initializer_list<std::string_view> names);
    /// Takes the first that begins so.
    std::string_view prefixed(std::string_view prefix);
    /// Takes the first modifier, whatever it is.
    std::string_view first();
    /// Fails if something has not been taken.
    void finish() const;

private:
    std::string_view opcode;
    std::vector<std::string_view> parts;
};

using Decode = void (*)(Decoder&, const ptx::Instruction&, Modifiers&);

class Table {
public:
    /// "add[.rn].{s32,u32}": [] may be absent, {} are alternatives.
    void add(std::string_view pattern, Implementation);
    /// All opcodes that begin with this word (it may have dots: "cp.async.bulk"; the longest counts).
    void decode(std::string_view word, Decode);

    const Implementation* exact(std::string_view opcode) const;
    Decode by_word(std::string_view opcode, std::string_view& word) const;

private:
    std::unordered_map<std::string, Implementation> by_name;
    std::unordered_map<std::string, Decode> by_first;
};
const Table& table();

// The families
void add_integer(Table&);
void add_bits(Table&);
void add_float(Table&);
void add_half(Table&);
void add_compare(Table&);
void add_convert(Table&);
void add_move(Table&);
void add_memory(Table&);
void add_atomic(Table&);
void add_collective(Table&);
void add_control(Table&);
void add_async(Table&);
void add_matrix(Table&);
void add_mma(Table&);
void add_mbarrier(Table&);
void add_bulk(Table&);
void add_wgmma(Table&);

/// Addresses of module variables, known before decoding.
struct Globals {
    std::map<std::string, uint64_t, std::less<>> address;
    std::map<std::string_view, const ptx::Function*> functions;
};

/// Decodes one entry with everything it calls put in place of the calls. Also what decode functions of the
/// families ask for operands; register offsets are into the warp's file.
class Decoder {
public:
    Decoder(const ptx::Module& m, const Globals& g, Code& c) : module(m), globals(g), code(c) {}
    void entry(const ptx::Function&);

    // For the families
    Op& emit(Exec, const ptx::Instruction&, Flow = Flow::next);
    Extra& extra(Op&);
    void want_operands(const ptx::Instruction&, size_t least, size_t most) const;
    /// A register, or the lanes of a literal or special register. `letter` as in Implementation.
    int32_t source(const ptx::Operand&, char letter);
    /// A register of any width, or a literal taken as `otherwise` bytes wide.
    int32_t source_any(const ptx::Operand&, uint32_t otherwise, uint32_t& width);
    int32_t destination(const ptx::Operand&, char letter);
    int32_t destination_any(const ptx::Operand&, uint32_t otherwise, uint32_t& width);
    /// q of p|q, or NO_REGISTER.
    int32_t second_destination(const ptx::Operand&) const;
    /// The lanes of a literal. Width 0: a predicate.
    int32_t constant(uint64_t bits, uint32_t width);
    int32_t scratch(uint32_t width);
    int64_t literal(const ptx::Operand&) const;
    /// The base register of [base + offset]; the offset and the width of the base go into `m`.
    int32_t address(const ptx::Operand&, Memory& m);
    /// Puts the body of a function here. Arguments are variables of .param space.
    void call(const ptx::Function&, const std::vector<const ptx::Variable*>& arguments,
              const std::vector<const ptx::Variable*>& results);
    const ptx::Function& function_named(std::string_view) const;
    /// Offset in the local memory of a thread (also of .param variables of calls).
    uint32_t local_offset(const ptx::Variable&);
    /// Of the entry, not of a function that it calls.
    bool is_kernel_parameter(const ptx::Variable& v) const { return parameters.contains(&v); }
    uint32_t parameter_offset(const ptx::Variable& v) const { return parameters.at(&v); }
    bool in_entry() const { return frames.size() == 1; }
    const ptx::Function& current() const { return *frames.back().function; }
    void branch_to_label(uint32_t op, int32_t label);
    void branch_to_end(uint32_t op);
    void jump_here(uint32_t op) { code.ops[op].target = next_op(); }
    void table_of_labels(uint32_t op, int32_t list);
    uint32_t next_op() const { return uint32_t(code.ops.size()); }

    [[noreturn]] void fail(const std::string& what) const;

private:
    struct Frame {
        const ptx::Function* function;
        std::vector<int32_t> registers; // offsets
        std::vector<uint32_t> first_op; // of each instruction, and the end
        struct Jump {
            uint32_t op;
            int32_t label; // -1: the end
        };
        std::vector<Jump> jumps;
        std::vector<std::pair<uint32_t, int32_t>> tables; // index of code.branch_tables, list
        std::map<const ptx::Variable*, uint32_t> bound;   // parameters: offsets in local memory
    };
    const ptx::Module& module;
    const Globals& globals;
    Code& code;
    std::vector<Frame> frames;
    const ptx::Instruction* now = nullptr;
    std::map<std::pair<uint64_t, uint32_t>, int32_t> constants;
    std::map<std::string, int32_t, std::less<>> specials;
    std::map<const ptx::Variable*, uint32_t> locals, shareds;
    std::set<const ptx::Function*> shared_seen;
    uint32_t dynamic_align = 1;
    std::map<const ptx::Variable*, uint32_t> parameters;
    std::map<std::pair<uint32_t, uint32_t>, uint32_t> sites_by_line;

    void body();
    void place_shared(const ptx::Function&);
    void instruction(const ptx::Instruction&);
    void simple(const ptx::Instruction&, const Implementation&);
    int32_t allocate(uint32_t width);
    int32_t special(std::string_view name, uint32_t& width);
    uint64_t variable_address(const ptx::Variable&);
    uint32_t site_of(const ptx::Instruction&);
};

/// The bits of a literal as a lane of this letter.
uint64_t literal_bits(const ptx::Operand&, char letter);
uint32_t width_of(char letter);

/// Byte offset in the file of each register of a function; registers that are never alive together share one.
/// `bytes` is where they begin, and on return where they end.
std::vector<int32_t> place_registers(const ptx::Function&, uint32_t& bytes, uint32_t& alive);

} // namespace vgpu
