#include <algorithm>

#include "tools/vgpu/machine/decoder.h"

namespace vgpu {

Modifiers::Modifiers(std::string_view text) : opcode(text) {
    while (!text.empty()) {
        size_t dot = text.find('.');
        parts.push_back(text.substr(0, dot));
        text = dot == text.npos ? std::string_view{} : text.substr(dot + 1);
    }
}
bool Modifiers::take(std::string_view name) {
    auto found = std::find(parts.begin(), parts.end(), name);
    if (found == parts.end()) return false;
    parts.erase(found);
    return true;
}
std::string_view Modifiers::one_of(std::initializer_list<std::string_view> names) {
    for (std::string_view n : names) {
        if (take(n)) return n;
    }
    return {};
}
std::string_view Modifiers::prefixed(std::string_view prefix) {
    auto found = std::find_if(parts.begin(), parts.end(), [&](auto p) { return p.starts_with(prefix); });
    if (found == parts.end()) return {};
    std::string_view part = *found;
    parts.erase(found);
    return part;
}
std::string_view Modifiers::first() {
    if (parts.empty()) return {};
    std::string_view part = parts.front();
    parts.erase(parts.begin());
    return part;
}
void Modifiers::finish() const {
    if (!parts.empty())
        throw Error("unknown modifier '." + std::string(parts[0]) + "' of '" + std::string(opcode) + "'");
}

namespace {

/// All strings of a pattern with [] (may be absent) and {,} (alternatives).
std::vector<std::string> expand(std::string_view pattern) {
    size_t open = pattern.find_first_of("[{");
    if (open == pattern.npos) return {std::string(pattern)};
    bool optional = pattern[open] == '[';
    int depth = 0;
    size_t close = open;
    do { // the matching bracket
        char c = pattern[close];
        depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
    } while (depth && ++close < pattern.size());
    std::string_view inner = pattern.substr(open + 1, close - open - 1);
    std::vector<std::string> choices;
    if (optional)
        choices = {"", std::string(inner)};
    else {
        for (size_t at = 0; at <= inner.size();) {
            size_t comma = std::min(inner.find(',', at), inner.size());
            choices.emplace_back(inner.substr(at, comma - at));
            at = comma + 1;
        }
    }
    std::vector<std::string> all;
    for (const std::string& choice : choices) {
        for (const std::string& rest : expand(choice + std::string(pattern.substr(close + 1))))
            all.push_back(std::string(pattern.substr(0, open)) + rest);
    }
    return all;
}

} // namespace

void Table::add(std::string_view pattern, Implementation what) {
    for (const std::string& name : expand(pattern)) by_name.insert_or_assign(name, what);
}
void Table::decode(std::string_view word, Decode function) { by_first[std::string(word)] = function; }

const Implementation* Table::exact(std::string_view opcode) const {
    auto found = by_name.find(std::string(opcode));
    return found == by_name.end() ? nullptr : &found->second;
}
Decode Table::by_word(std::string_view opcode, std::string_view& word) const {
    for (word = opcode;;) {
        if (auto found = by_first.find(std::string(word)); found != by_first.end()) return found->second;
        size_t dot = word.rfind('.');
        if (dot == word.npos) return nullptr;
        word = word.substr(0, dot);
    }
}

const Table& table() {
    static const Table all = [] {
        Table t;
        for (auto add : {add_integer, add_bits, add_float, add_half, add_compare, add_convert, add_move,
                         add_memory, add_atomic, add_collective, add_control, add_async, add_matrix, add_mma,
                         add_mbarrier, add_bulk, add_wgmma})
            add(t);
        return t;
    }();
    return all;
}

} // namespace vgpu
