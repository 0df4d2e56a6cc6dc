#include <algorithm>
#include <cstring>
#include <optional>

#include "tools/vgpu/ptx/ast.h"
#include "tools/vgpu/ptx/lexer.h"

namespace vgpu::ptx {
namespace {

/// Bytes of .b8 ... .f64; 0 if `word` is no such type. .pred counts as 1.
uint32_t bytes_of_type(std::string_view word) {
    static const std::map<std::string_view, uint32_t> bytes = {
        {".pred", 1}, {".b8", 1},   {".u8", 1},  {".s8", 1},  {".b16", 2},   {".u16", 2},   {".s16", 2},
        {".f16", 2},  {".bf16", 2}, {".b32", 4}, {".u32", 4}, {".s32", 4},   {".f32", 4},   {".f16x2", 4},
        {".b64", 8},  {".u64", 8},  {".s64", 8}, {".f64", 8}, {".b128", 16}, {".bf16x2", 4}};
    auto found = bytes.find(word);
    return found == bytes.end() ? 0 : found->second;
}

std::optional<StateSpace> space_of(std::string_view word) {
    if (word == ".global") return StateSpace::global;
    if (word == ".const") return StateSpace::constant;
    if (word == ".shared") return StateSpace::shared;
    if (word == ".local") return StateSpace::local;
    if (word == ".param") return StateSpace::parameter;
    return {};
}

/// What a name means between two braces.
struct Scope {
    std::map<std::string_view, int32_t> registers;
    std::map<std::string_view, const Variable*> variables;
    std::map<std::string_view, int32_t> labels;
    std::map<std::string_view, int32_t> branches; // .branchtargets
    struct Use {
        uint32_t instruction, operand;
        std::string_view name;
        uint32_t line;
    };
    std::vector<Use> unresolved;
    struct BranchUse {
        size_t list, item;
        std::string_view name;
        uint32_t line;
    };
    std::vector<BranchUse> unresolved_branches;
};

class Parser {
public:
    explicit Parser(std::string_view text) {
        module.text = std::make_shared<const std::string>(text);
        tokens = tokens_of(*module.text);
    }

    Module run() {
        collect_files();
        while (now().kind != Token::end) top_level();
        return std::move(module);
    }

private:
    Module module;
    std::vector<Token> tokens;
    size_t at = 0;
    std::map<int64_t, std::string> files;
    std::map<std::string_view, const Variable*> globals;
    std::map<std::string, uint32_t> source_index;
    uint32_t source = 0;
    Function* function = nullptr;
    std::vector<Scope> scopes;

    // Tokens ---------------------------------------------------------------------------------------------
    const Token& now() const { return tokens[at]; }
    bool see(std::string_view s) const { return now().is(s); }
    bool take(std::string_view s) { return see(s) ? (at++, true) : false; }
    [[noreturn]] void fail(const std::string& what) const { throw SyntaxError(now().line, what); }
    void want(std::string_view s) {
        if (!take(s)) fail("expected '" + std::string(s) + "', found '" + std::string(now().text) + "'");
    }
    std::string_view word() {
        if (now().kind != Token::word) fail("expected a name, found '" + std::string(now().text) + "'");
        return tokens[at++].text;
    }
    int64_t integer() {
        bool minus = take("-");
        if (now().kind != Token::integer) fail("expected a number, found '" + std::string(now().text) + "'");
        int64_t v = tokens[at++].value;
        return minus ? -v : v;
    }
    void skip_past(std::string_view s) {
        while (now().kind != Token::end && !see(s)) at++;
        want(s);
    }
    void skip_line() {
        for (uint32_t line = now().line; now().kind != Token::end && now().line == line;) at++;
    }

    /// .file lines stand at the end of the text but .loc lines need them: read first.
    void collect_files() {
        for (size_t i = 0; i + 2 < tokens.size(); i++) {
            if (!tokens[i].is(".file") || tokens[i + 2].kind != Token::string) continue;
            std::string_view name = tokens[i + 2].text;
            name = name.substr(1, name.size() - 2);
            size_t slash = name.rfind('/');
            files[tokens[i + 1].value] = std::string(slash == name.npos ? name : name.substr(slash + 1));
        }
    }

    // Module level -----------------------------------------------------------------------------------------
    void top_level() {
        if (take(".version")) {
            module.version = std::string(tokens[at++].text);
        } else if (take(".target")) {
            module.target = std::string(word());
            while (take(",")) at++;
        } else if (take(".address_size")) {
            if (integer() != 64) fail(".address_size 64 is the only one known");
        } else if (see(".file") || see(".loc")) {
            skip_line();
        } else if (take(".section")) {
            skip_past("}");
        } else if (take(".pragma") || take(".alias")) {
            skip_past(";");
        } else {
            declaration();
        }
    }

    void declaration() {
        bool external = false;
        while (see(".extern") || see(".visible") || see(".weak") || see(".common")) {
            external |= see(".extern");
            at++;
        }
        if (see(".entry") || see(".func")) return define_function();
        std::optional<StateSpace> space = space_of(now().text);
        if (!space) fail("unknown directive '" + std::string(now().text) + "'");
        at++;
        do {
            const Variable* v = variable(*space, external);
            globals[v->name] = v;
        } while (take(","));
        want(";");
    }

    // Variables --------------------------------------------------------------------------------------------
    /// [.align n] [.attribute(..)] .type name[dims] [= initial], behind its state space.
    const Variable* variable(StateSpace space, bool external) {
        module.variables.emplace_back();
        Variable& v = module.variables.back();
        v.space = space, v.external = external, v.in_function = function != nullptr;
        uint32_t vector = 1;
        bool aligned = false, pointer = false;
        for (;;) {
            if (take(".align")) {
                uint32_t align = uint32_t(integer());
                if (!pointer) v.align = align, aligned = true;
            } else if (take(".attribute"))
                skip_past(")");
            else if (take(".ptr")) { // of a kernel parameter: the pointee's space and alignment follow
                pointer = true;
                if (space_of(now().text)) at++;
            } else if (take(".v2"))
                vector = 2;
            else if (take(".v4"))
                vector = 4;
            else if (uint32_t bytes = bytes_of_type(now().text)) {
                v.element = bytes * vector;
                at++;
            } else
                break;
        }
        if (!aligned) v.align = v.element;
        v.name = std::string(word());
        uint64_t count = 1;
        while (take("[")) {
            count = take("]") ? 0 : count * uint64_t(integer());
            if (count) want("]");
        }
        v.bytes = count * v.element;
        if (take("=")) initialise(v);
        return &v;
    }

    void initialise(Variable& v) {
        v.initial.assign(v.bytes, std::byte{});
        uint64_t offset = 0;
        initial_value(v, offset);
    }

    void initial_value(Variable& v, uint64_t& offset) {
        if (take("{")) {
            if (take("}")) return;
            do initial_value(v, offset);
            while (take(","));
            return want("}");
        }
        if (offset + v.element > v.bytes) fail(v.name + " has more initial values than elements");
        if (now().kind == Token::word) { // a name, generic(name), each with + addend, or 0xff(name)
            bool wrapped = take("generic");
            if (wrapped) want("(");
            std::string name(word());
            if (wrapped) want(")");
            int64_t addend = take("+") ? integer() : 0;
            v.references.push_back({offset, name, addend});
        } else {
            bool minus = take("-");
            const Token& t = tokens[at++];
            int64_t bits = t.value;
            if (t.kind != Token::integer && t.kind != Token::float32 && t.kind != Token::float64)
                fail("expected an initial value of " + v.name);
            if (minus) bits = -bits;
            std::memcpy(v.initial.data() + offset, &bits, std::min<size_t>(v.element, 8));
        }
        offset += v.element;
    }

    // Functions --------------------------------------------------------------------------------------------
    void define_function() {
        module.functions.emplace_back();
        Function& f = module.functions.back();
        function = &f;
        f.line = now().line, f.entry = take(".entry");
        scopes.assign(1, {});
        if (!f.entry) {
            want(".func");
            if (take(".noreturn")) {
            }
            if (see("(")) f.returns = parameters();
        }
        f.name = std::string(word());
        if (see("(")) f.parameters = parameters();
        directives(f);
        if (take(";")) {
            f.declared_only = true;
        } else {
            want("{");
            source = 0;
            body();
            if (!scopes.back().unresolved.empty())
                throw SyntaxError(scopes.back().unresolved[0].line,
                                  "label '" + std::string(scopes.back().unresolved[0].name) +
                                      "' does not exist");
        }
        function = nullptr;
    }

    std::vector<const Variable*> parameters() {
        std::vector<const Variable*> list;
        want("(");
        if (take(")")) return list;
        do {
            if (take(".reg")) fail("parameters in registers are not supported");
            want(".param");
            list.push_back(variable(StateSpace::parameter, false));
            scopes.back().variables[list.back()->name] = list.back();
        } while (take(","));
        want(")");
        return list;
    }

    void directives(Function& f) {
        while (now().kind == Token::word && now().text[0] == '.') {
            std::string name(word());
            if (name == ".pragma") {
                skip_past(";");
                continue;
            }
            std::vector<uint32_t>& numbers = f.directives[name];
            if (now().kind != Token::integer) continue;
            do numbers.push_back(uint32_t(integer()));
            while (take(","));
        }
    }

    void body() {
        while (!see("}")) {
            if (now().kind == Token::end) fail("the body of " + function->name + " does not end");
            statement();
        }
        want("}");
    }

    void statement() {
        if (take(";")) return;
        if (take("{")) {
            scopes.emplace_back();
            body();
            close_scope();
        } else if (see(".reg")) {
            at++;
            registers();
        } else if (see(".loc")) {
            location();
        } else if (take(".pragma")) {
            skip_past(";");
        } else if (see(".file")) {
            skip_line();
        } else if (auto space = space_of(now().text)) {
            at++;
            do {
                const Variable* v = variable(*space, false);
                scopes.back().variables[v->name] = v;
                function->variables.push_back(v);
            } while (take(","));
            want(";");
        } else if (now().kind == Token::word && tokens[at + 1].is(":")) {
            label();
        } else {
            instruction();
        }
    }

    void registers() {
        uint32_t bytes = bytes_of_type(now().text);
        if (!bytes) fail("unknown register type '" + std::string(now().text) + "'");
        bool predicate = see(".pred");
        at++;
        Width width = predicate ? Width::predicate : bytes < 2 ? Width::b16 : Width(bytes);
        do {
            std::string_view name = word();
            if (take("<")) {
                int64_t count = integer();
                want(">");
                for (int64_t i = 0; i < count; i++) {
                    names.push_back(std::string(name) + std::to_string(i));
                    add_register(names.back(), width);
                }
            } else {
                add_register(name, width);
            }
        } while (take(","));
        want(";");
    }
    std::deque<std::string> names; // of numbered registers: keys of scopes point here

    void add_register(std::string_view name, Width width) {
        scopes.back().registers[name] = int32_t(function->registers.size());
        function->registers.push_back({std::string(name), width});
    }

    /// .loc file line column[, function_name label[+n], inlined_at file line column]
    void location() {
        uint32_t on = now().line;
        want(".loc");
        std::string place = one_place();
        while (now().line == on && take(",")) {
            std::string_view what = word();
            if (what == "function_name") {
                word();
                if (take("+")) integer();
            } else if (what == "inlined_at") {
                place += " via " + one_place();
            } else {
                fail("unknown part '" + std::string(what) + "' of .loc");
            }
        }
        auto [entry, added] = source_index.try_emplace(place, uint32_t(module.sources.size()));
        if (added) module.sources.push_back(place);
        source = entry->second;
    }
    std::string one_place() {
        int64_t file = integer(), line = integer();
        integer();
        return files[file] + ":" + std::to_string(line);
    }

    // Labels -----------------------------------------------------------------------------------------------
    void label() {
        std::string_view name = word();
        want(":");
        if (take(".branchtargets")) {
            size_t list = function->branches.size();
            function->branches.emplace_back();
            scopes.back().branches[name] = int32_t(list);
            do {
                scopes.back().unresolved_branches.push_back(
                    {list, function->branches[list].size(), now().text, now().line});
                function->branches[list].push_back(-1);
                word();
            } while (take(","));
            want(";");
            return;
        }
        if (see(".callprototype")) return skip_past(";");
        scopes.back().labels[name] = int32_t(function->labels.size());
        function->labels.push_back(uint32_t(function->body.size()));
        resolve(scopes.back());
    }

    void resolve(Scope& s) {
        std::erase_if(s.unresolved, [&](const Scope::Use& use) {
            Operand& o = function->body[use.instruction].operands[use.operand];
            if (auto l = s.labels.find(use.name); l != s.labels.end())
                o.index = l->second;
            else if (auto b = s.branches.find(use.name); b != s.branches.end())
                o.index = b->second;
            else
                return false;
            return true;
        });
        std::erase_if(s.unresolved_branches, [&](const Scope::BranchUse& use) {
            auto l = s.labels.find(use.name);
            if (l == s.labels.end()) return false;
            function->branches[use.list][use.item] = l->second;
            return true;
        });
    }

    void close_scope() {
        Scope inner = std::move(scopes.back());
        scopes.pop_back();
        Scope& outer = scopes.back();
        outer.unresolved.insert(outer.unresolved.end(), inner.unresolved.begin(), inner.unresolved.end());
        outer.unresolved_branches.insert(outer.unresolved_branches.end(), inner.unresolved_branches.begin(),
                                         inner.unresolved_branches.end());
        resolve(outer);
    }

    // Instructions -----------------------------------------------------------------------------------------
    void instruction() {
        Instruction i;
        i.line = now().line, i.source = source;
        if (take("@")) {
            i.guard_negated = take("!");
            std::string_view name = word();
            i.guard = register_named(name);
            if (i.guard < 0) fail("predicate '" + std::string(name) + "' is not declared");
        }
        i.opcode = word();
        bool jumps = i.opcode.starts_with("bra") || i.opcode.starts_with("brx");
        while (!see(";")) {
            i.operands.push_back(operand(jumps));
            if (!take(",") && !see(";")) fail("expected ',' or ';', found '" + std::string(now().text) + "'");
        }
        want(";");
        for (uint32_t k = 0; k < i.operands.size(); k++) {
            if (i.operands[k].kind == Operand::label)
                scopes.back().unresolved.push_back(
                    {uint32_t(function->body.size()), k, i.operands[k].name, i.line});
        }
        function->body.push_back(std::move(i));
        resolve(scopes.back());
    }

    int32_t register_named(std::string_view name) const {
        for (auto s = scopes.rbegin(); s != scopes.rend(); ++s) {
            if (auto found = s->registers.find(name); found != s->registers.end()) return found->second;
        }
        return -1;
    }
    const Variable* variable_named(std::string_view name) const {
        for (auto s = scopes.rbegin(); s != scopes.rend(); ++s) {
            if (auto found = s->variables.find(name); found != s->variables.end()) return found->second;
        }
        auto found = globals.find(name);
        return found == globals.end() ? nullptr : found->second;
    }
    bool is_function(std::string_view name) const {
        return std::any_of(module.functions.begin(), module.functions.end(),
                           [&](auto& f) { return f.name == name; });
    }

    Operand operand(bool label_allowed) {
        Operand o;
        o.negated = take("!");
        const Token& t = now();
        if (t.is("{") || t.is("(")) {
            bool vector = take("{");
            if (!vector) want("(");
            o.kind = vector ? Operand::vector : Operand::arguments;
            std::string_view end = vector ? "}" : ")";
            while (!see(end)) {
                o.list.push_back(operand(false));
                if (!take(",") && !see(end)) fail("expected ',' or '" + std::string(end) + "'");
            }
            want(end);
        } else if (take("[")) {
            o.kind = Operand::address;
            do o.list.push_back(operand(false));
            while (take(","));
            want("]");
            if (o.list[0].kind == Operand::reg || o.list[0].kind == Operand::variable)
                o.value = o.list[0].value;
        } else if (t.kind == Token::word) {
            name(o, label_allowed);
        } else {
            number(o);
        }
        if (take("|")) {
            Operand q = operand(false);
            if (q.kind == Operand::reg) o.second = q.index;
        }
        return o;
    }

    void name(Operand& o, bool label_allowed) {
        o.name = word();
        o.index = register_named(o.name);
        if (o.name == "_")
            o.kind = Operand::none;
        else if (o.index >= 0)
            o.kind = Operand::reg;
        else if (o.name[0] == '%')
            o.kind = Operand::special;
        else if ((o.var = variable_named(o.name)))
            o.kind = Operand::variable;
        else if (label_allowed)
            o.kind = Operand::label;
        else if (is_function(o.name))
            o.kind = Operand::function;
        else
            fail("'" + std::string(o.name) + "' is not declared");
        if (take("+"))
            o.value = integer();
        else if (see("-"))
            o.value = integer();
    }

    void number(Operand& o) {
        bool minus = take("-");
        const Token& t = tokens[at++];
        o.value = t.value;
        if (t.kind == Token::integer) {
            o.kind = Operand::integer;
            if (minus) o.value = -o.value;
        } else if (t.kind == Token::float32 || t.kind == Token::float64) {
            o.kind = t.kind == Token::float32 ? Operand::float32 : Operand::float64;
            if (minus) o.value ^= t.kind == Token::float32 ? int64_t(1) << 31 : INT64_MIN;
        } else {
            at--;
            fail("unexpected '" + std::string(t.text) + "'");
        }
    }
};

} // namespace

Module parse(std::string_view text) { return Parser(text).run(); }

} // namespace vgpu::ptx
