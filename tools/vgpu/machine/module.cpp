#include "tools/vgpu/machine/module.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

class Loaded : public Module {
public:
    Loaded(std::string_view text, int arch, const std::string& file, const Allocate& allocate) : file(file) {
        try {
            ptx = ptx::parse(text);
        } catch (const ptx::SyntaxError& e) {
            throw Error(file + ": PTX line " + std::to_string(e.line) + ": " + e.what());
        }
        check_target(arch);
        place_variables(allocate);
        for (const ptx::Function& f : ptx.functions) {
            auto [at, added] = globals.functions.try_emplace(f.name, &f);
            if (!added && !f.declared_only) at->second = &f;
        }
        for (const ptx::Function& f : ptx.functions) {
            if (f.entry && !f.declared_only) all_functions.push_back(decoded(f));
        }
    }

    const Function* find(std::string_view name) const override {
        auto f =
            std::find_if(all_functions.begin(), all_functions.end(), [&](auto& x) { return x.name == name; });
        return f == all_functions.end() ? nullptr : &*f;
    }
    const Variable* variable(std::string_view name) const override {
        auto v =
            std::find_if(all_variables.begin(), all_variables.end(), [&](auto& x) { return x.name == name; });
        return v == all_variables.end() ? nullptr : &*v;
    }
    const std::vector<Function>& functions() const override { return all_functions; }
    const std::vector<Variable>& variables() const override { return all_variables; }

private:
    std::string file;
    ptx::Module ptx;
    Globals globals;
    std::vector<Function> all_functions;
    std::vector<Variable> all_variables;
    struct Freed {
        void operator()(void* p) const { std::free(p); }
    };
    std::vector<std::unique_ptr<void, Freed>> owned;

    void check_target(int arch) const {
        if (!ptx.target.starts_with("sm_")) throw Error(file + ": unknown target '" + ptx.target + "'");
        int target = std::atoi(ptx.target.c_str() + 3);
        bool exact = std::isalpha(uint8_t(ptx.target.back()));
        if (target > arch || (exact && target != arch))
            throw Error(file + ": built for " + ptx.target + ", the device is sm_" + std::to_string(arch));
    }

    void place_variables(const Allocate& allocate) {
        for (const ptx::Variable& v : ptx.variables) {
            bool mine = v.space == ptx::StateSpace::global || v.space == ptx::StateSpace::constant;
            if (!mine || v.external || v.bytes == 0) continue;
            uint64_t align = std::max(v.align, 16u), address;
            if (allocate) {
                address = allocate(v.name, v.bytes, align);
            } else {
                owned.emplace_back(std::aligned_alloc(align, (v.bytes + align - 1) / align * align));
                address = reinterpret_cast<uint64_t>(owned.back().get());
            }
            globals.address[v.name] = address;
            all_variables.push_back({v.name, address, v.bytes, v.space == ptx::StateSpace::constant});
        }
        for (const ptx::Variable& v : ptx.variables) {
            auto at = globals.address.find(v.name);
            if (at == globals.address.end()) continue;
            auto* bytes = reinterpret_cast<std::byte*>(at->second);
            std::memset(bytes, 0, v.bytes);
            if (!v.initial.empty())
                std::memcpy(bytes, v.initial.data(), std::min<size_t>(v.initial.size(), v.bytes));
            for (const ptx::Variable::Reference& r : v.references) {
                auto other = globals.address.find(r.name);
                if (other == globals.address.end())
                    throw Error(file + ": variable " + v.name + " holds the address of " + r.name +
                                ", which is no variable");
                uint64_t address = other->second + uint64_t(r.addend);
                std::memcpy(bytes + r.offset, &address, std::min<size_t>(v.element, 8));
            }
        }
    }

    Function decoded(const ptx::Function& f) {
        auto code = std::make_shared<Code>();
        Decoder decoder(ptx, globals, *code);
        try {
            decoder.entry(f);
        } catch (const Error& e) {
            throw Error(file + ": kernel " + f.name + ", " + e.what());
        }
        Function out;
        out.name = f.name;
        uint32_t offset = 0;
        for (const ptx::Variable* p : f.parameters) {
            offset = (offset + p->align - 1) / p->align * p->align;
            out.parameters.push_back({offset, uint32_t(p->bytes)});
            offset += uint32_t(p->bytes);
        }
        out.parameter_bytes = offset;
        out.static_shared = code->shared_bytes, out.local = code->local_bytes,
        out.registers = code->registers_alive;
        auto numbers = [&](const char* name) -> Dim3 {
            auto found = f.directives.find(name);
            if (found == f.directives.end()) return {0, 0, 0};
            Dim3 d;
            if (found->second.size() > 0) d.x = found->second[0];
            if (found->second.size() > 1) d.y = found->second[1];
            if (found->second.size() > 2) d.z = found->second[2];
            return d;
        };
        if (Dim3 most = numbers(".maxntid"); most.count()) out.max_threads = uint32_t(most.count());
        out.required_threads = numbers(".reqntid");
        out.cluster = numbers(".reqnctapercluster");
        out.code = std::move(code);
        return out;
    }
};

} // namespace

std::shared_ptr<const Module> load_module(std::string_view text, int arch, const std::string& file,
                                          const Allocate& allocate) {
    return std::make_shared<Loaded>(text, arch, file, allocate);
}

} // namespace vgpu
