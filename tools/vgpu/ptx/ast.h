// What the parser makes of PTX text: names are resolved (scopes are gone), instructions keep their text.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace vgpu::ptx {

/// Wrong or unknown text at a line of the module.
struct SyntaxError : std::runtime_error {
    SyntaxError(uint32_t line, const std::string& what) : std::runtime_error(what), line(line) {}
    uint32_t line;
};

enum class StateSpace : uint8_t { global, constant, shared, local, parameter };

struct Variable {
    std::string name;
    StateSpace space = StateSpace::global;
    uint32_t align = 1;
    uint32_t element = 1; // bytes
    uint64_t bytes = 0;   // 0: extern array of unknown size (dynamic shared memory)
    bool external = false;
    bool in_function = false;
    std::vector<std::byte> initial; // may be shorter than bytes; the rest is zero
    struct Reference {              // an element that holds the address of another variable
        uint64_t offset;
        std::string name;
        int64_t addend;
    };
    std::vector<Reference> references;
};

struct Function;

/// Width of a register: predicates are one bit a lane, all else is bytes.
enum class Width : uint8_t { predicate = 0, b16 = 2, b32 = 4, b64 = 8, b128 = 16 };

struct Register {
    std::string name;
    Width width;
};

struct Operand {
    enum Kind : uint8_t {
        none,      // the sink _
        reg,       // index: register of the function
        special,   // name: %tid.x and the like
        integer,   // value
        float32,   // value: bits
        float64,   // value: bits
        variable,  // address of a variable plus value
        function,  // name
        label,     // index: label of the function
        address,   // [list[0] + value, list[1..]]
        vector,    // {list}
        arguments, // (list)
    };
    Kind kind = none;
    bool negated = false; // !p
    int32_t index = -1;
    int32_t second = -1; // register of q in p|q
    int64_t value = 0;
    const Variable* var = nullptr;
    std::string_view name;
    std::vector<Operand> list;
};

struct Instruction {
    std::string_view opcode; // with all modifiers
    std::vector<Operand> operands;
    int32_t guard = -1; // register
    bool guard_negated = false;
    uint32_t line = 0;
    uint32_t source = 0; // index in Module::sources
};

struct Function {
    std::string name;
    bool entry = false, declared_only = false;
    uint32_t line = 0;
    std::vector<const Variable*> parameters, returns;
    std::vector<Register> registers;
    std::vector<Instruction> body;
    std::vector<uint32_t> labels;                            // instruction index
    std::vector<std::vector<int32_t>> branches;              // .branchtargets lists, of labels
    std::vector<const Variable*> variables;                  // .local, .param and .shared of the body
    std::map<std::string, std::vector<uint32_t>> directives; // ".maxntid" -> numbers
};

struct Module {
    std::string version, target;
    std::deque<Variable> variables; // stable addresses; also those of functions
    std::deque<Function> functions;
    /// Source places, "file.cu:58 via file.cu:71"; [0] is empty.
    std::vector<std::string> sources{""};
    std::shared_ptr<const std::string> text; // string_views above point into it
};

Module parse(std::string_view text);

} // namespace vgpu::ptx
