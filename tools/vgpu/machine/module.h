// A PTX module ready to run: every entry decoded into micro-operations, every module variable placed.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tools/vgpu/machine/observer.h"

namespace vgpu {

/// One line: where (file, kernel, PTX line) and what.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Code; // micro-operations (code.h)

struct Parameter {
    uint32_t offset, bytes; // in Launch::parameters
};

/// An entry of a module (a __global__ function).
struct Function {
    std::string name; // mangled
    std::vector<Parameter> parameters;
    uint32_t parameter_bytes = 0;
    uint32_t static_shared = 0; // bytes of __shared__ variables; dynamic shared memory starts behind them
    uint32_t local = 0;         // bytes of stack of a thread
    uint32_t registers = 0;     // estimate: 32-bit registers alive at once
    uint32_t max_threads = 1024;
    Dim3 required_threads{0, 0, 0}; // .reqntid, 0 = free
    Dim3 cluster{0, 0, 0};          // .reqnctapercluster, 0 = free
    std::shared_ptr<const Code> code;
};

/// A __device__ or __constant__ variable.
struct Variable {
    std::string name; // mangled
    uint64_t address; // device address
    uint64_t bytes;
    bool constant;
};

/// Gives memory to a module variable; the module writes its initial value there (all bytes, zeros too) before
/// load_module returns, so the memory has to be accessible then.
using Allocate = std::function<uint64_t(std::string_view name, uint64_t bytes, uint64_t align)>;

class Module {
public:
    virtual ~Module() = default;
    /// By mangled name; null if there is none.
    virtual const Function* find(std::string_view name) const = 0;
    virtual const Variable* variable(std::string_view name) const = 0;
    virtual const std::vector<Function>& functions() const = 0;
    virtual const std::vector<Variable>& variables() const = 0;
};

/// Parses and decodes. `arch` is the device's (80, 90, 100): a module for a newer one is refused. An unknown
/// opcode or modifier throws an Error that names `file`, kernel and PTX line. Without `allocate`, the module
/// owns the memory of its variables. One module belongs to one device: addresses are fixed at load.
std::shared_ptr<const Module> load_module(std::string_view ptx, int arch, const std::string& file = "module",
                                          const Allocate& allocate = nullptr);

} // namespace vgpu
