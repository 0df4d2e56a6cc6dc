// Places the virtual registers of a function in the register file. nvcc's PTX has thousands of them, each
// written about once; by liveness they fit into the few hundred that the hardware would use, which the
// host's cache holds. Lanes of a warp may be at different places, but a register is used lane by lane, so
// the liveness of one thread is what counts.
#include <algorithm>
#include <map>

#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

using Bits = std::vector<uint64_t>;
bool test(const Bits& b, int32_t r) { return b[size_t(r) / 64] >> (r % 64) & 1; }
void set(Bits& b, int32_t r) { b[size_t(r) / 64] |= 1ull << (r % 64); }
void clear(Bits& b, int32_t r) { b[size_t(r) / 64] &= ~(1ull << (r % 64)); }

/// Opcodes whose first operand is not a result.
bool has_no_result(std::string_view opcode) {
    std::string_view name = opcode.substr(0, opcode.find('.'));
    static constexpr std::string_view NAMES[] = {"st",       "red",       "bra",     "brx",      "ret",
                                                 "exit",     "call",      "bar",     "barrier",  "membar",
                                                 "fence",    "cp",        "trap",    "stmatrix", "nanosleep",
                                                 "prefetch", "prefetchu", "discard", "mbarrier", "wgmma"};
    return std::find(std::begin(NAMES), std::end(NAMES), name) != std::end(NAMES);
}

/// The registers that an instruction reads and writes. What is not certain counts as read, too.
struct Use {
    std::vector<int32_t> reads, writes;
    bool overwrites = false; // the writes replace the old value
};

void collect(const ptx::Operand& o, std::vector<int32_t>& to) {
    if (o.kind == ptx::Operand::reg) to.push_back(o.index);
    if (o.second >= 0) to.push_back(o.second);
    for (const ptx::Operand& inner : o.list) collect(inner, to);
}

Use use_of(const ptx::Instruction& i) {
    Use u;
    if (i.guard >= 0) u.reads.push_back(i.guard);
    bool result = !has_no_result(i.opcode);
    for (size_t k = 0; k < i.operands.size(); k++)
        collect(i.operands[k], k == 0 && result ? u.writes : u.reads);
    u.overwrites = result && i.guard < 0;
    if (!result) u.writes = u.reads; // wgmma, bar.red and others may write what looks read
    if (!u.overwrites) u.reads.insert(u.reads.end(), u.writes.begin(), u.writes.end());
    return u;
}

struct Part { // a basic block
    uint32_t begin, end;
    std::vector<uint32_t> next;
    Bits read, written, in, out; // read before written; written
};

class Liveness {
public:
    explicit Liveness(const ptx::Function& f) : f(f), words(f.registers.size() / 64 + 1) {
        for (const ptx::Instruction& i : f.body) uses.push_back(use_of(i));
        split();
        solve();
    }
    /// First and last instruction at which each register holds something that matters: one interval, holes
    /// filled.
    std::vector<std::pair<uint32_t, uint32_t>> intervals() const {
        std::vector<std::pair<uint32_t, uint32_t>> r(f.registers.size(), {~0u, 0});
        auto touch = [&](int32_t reg, uint32_t at) {
            auto& [first, last] = r[size_t(reg)];
            first = std::min(first, at), last = std::max(last, at);
        };
        for (const Part& p : parts) {
            for (int32_t reg = 0; reg < int32_t(f.registers.size()); reg++) {
                if (test(p.in, reg)) touch(reg, p.begin);
                if (test(p.out, reg))
                    touch(reg, p.end - 1), touch(reg, p.end); // not free in the last instruction
            }
            for (uint32_t i = p.begin; i < p.end; i++) {
                for (int32_t reg : uses[i].reads) touch(reg, i);
                for (int32_t reg : uses[i].writes) touch(reg, i);
                if (f.body[i].opcode.starts_with("wgmma.mma_async")) { // written later: nobody else's place
                    for (int32_t reg : uses[i].writes) touch(reg, 0), touch(reg, uint32_t(f.body.size()));
                }
            }
        }
        return r;
    }

private:
    const ptx::Function& f;
    size_t words;
    std::vector<Use> uses;
    std::vector<Part> parts;

    static bool jumps(std::string_view opcode) {
        return opcode.starts_with("bra") || opcode.starts_with("brx");
    }
    static bool ends(std::string_view opcode) { return opcode.starts_with("ret") || opcode == "exit"; }

    void split() {
        uint32_t n = uint32_t(f.body.size());
        std::vector<bool> starts(n + 1);
        starts[0] = starts[n] = true;
        for (uint32_t l : f.labels) starts[std::min(l, n)] = true;
        for (uint32_t i = 0; i < n; i++) {
            if (jumps(f.body[i].opcode) || ends(f.body[i].opcode)) starts[i + 1] = true;
        }
        std::vector<uint32_t> part_at(n + 1);
        for (uint32_t i = 0; i < n;) {
            uint32_t end = i + 1;
            while (!starts[end]) end++;
            part_at[i] = uint32_t(parts.size());
            parts.push_back({i, end, {}, Bits(words), Bits(words), Bits(words), Bits(words)});
            i = end;
        }
        for (Part& p : parts) {
            const ptx::Instruction& last = f.body[p.end - 1];
            auto go = [&](int32_t label) {
                uint32_t at = f.labels[size_t(label)];
                if (at < n) p.next.push_back(part_at[at]);
            };
            if (last.opcode.starts_with("brx")) {
                for (int32_t label : f.branches[size_t(last.operands[1].index)]) go(label);
            } else if (jumps(last.opcode)) {
                go(last.operands[0].index);
            }
            bool falls = last.guard >= 0 || !(jumps(last.opcode) || ends(last.opcode));
            if (falls && p.end < n) p.next.push_back(part_at[p.end]);
            for (uint32_t i = p.begin; i < p.end; i++) {
                for (int32_t r : uses[i].reads) {
                    if (!test(p.written, r)) set(p.read, r);
                }
                if (uses[i].overwrites) {
                    for (int32_t r : uses[i].writes) set(p.written, r);
                }
            }
        }
    }

    void solve() {
        for (bool changed = true; changed;) {
            changed = false;
            for (size_t k = parts.size(); k--;) {
                Part& p = parts[k];
                for (uint32_t next : p.next) {
                    for (size_t w = 0; w < words; w++) p.out[w] |= parts[next].in[w];
                }
                for (size_t w = 0; w < words; w++) {
                    uint64_t in = p.read[w] | (p.out[w] & ~p.written[w]);
                    changed |= in != p.in[w];
                    p.in[w] = in;
                }
            }
        }
    }
};

uint32_t bytes_in_file(ptx::Width w) { return w == ptx::Width::predicate ? 4 : 32 * uint32_t(w); }

} // namespace

std::vector<int32_t> place_registers(const ptx::Function& f, uint32_t& bytes, uint32_t& alive) {
    std::vector<int32_t> place(f.registers.size(), int32_t(bytes));
    if (f.body.empty()) return place;
    auto intervals = Liveness(f).intervals();
    std::vector<size_t> order;
    for (size_t r = 0; r < intervals.size(); r++) {
        if (intervals[r].first != ~0u) order.push_back(r);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return intervals[a].first < intervals[b].first; });

    std::map<uint32_t, std::vector<int32_t>> free; // by bytes
    std::multimap<uint32_t, size_t> ending;        // last use, register
    uint32_t words = 0, most = 0;
    for (size_t r : order) {
        while (!ending.empty() && ending.begin()->first < intervals[r].first) {
            size_t ended = ending.begin()->second;
            uint32_t n = bytes_in_file(f.registers[ended].width);
            free[n].push_back(place[ended]);
            words -= n / 128;
            ending.erase(ending.begin());
        }
        uint32_t n = bytes_in_file(f.registers[r].width), align = n == 4 ? 4 : 64;
        if (std::vector<int32_t>& reusable = free[n]; !reusable.empty()) {
            place[r] = reusable.back();
            reusable.pop_back();
        } else {
            bytes = (bytes + align - 1) / align * align;
            place[r] = int32_t(bytes);
            bytes += n;
        }
        ending.emplace(intervals[r].second, r);
        words += n / 128;
        most = std::max(most, words);
    }
    alive = most;
    return place;
}

} // namespace vgpu
