#include "data/tokenizer/added.h"

#include <utf8proc.h>

#include <algorithm>

#include "data/tokenizer/unicode.h"

namespace nvl {

int AddedMatcher::child(int node, uint8_t byte) const {
    auto& next = nodes_[size_t(node)].next;
    auto at = std::ranges::lower_bound(next, byte, {}, &std::pair<uint8_t, int>::first);
    return at != next.end() && at->first == byte ? at->second : -1;
}

void AddedMatcher::add(const AddedToken& token, std::string content) {
    if (content.empty()) return;
    int node = 0;
    for (char c : content) {
        int to = child(node, uint8_t(c));
        if (to < 0) {
            to = int(nodes_.size());
            nodes_.emplace_back();
            auto& next = nodes_[size_t(node)].next;
            next.insert(std::ranges::lower_bound(next, uint8_t(c), {}, &std::pair<uint8_t, int>::first),
                        {uint8_t(c), to});
        }
        node = to;
    }
    if (nodes_[size_t(node)].token >= 0) return; // a token of this content is there already
    starts_[uint8_t(content[0])] = true;
    nodes_[size_t(node)].token = int(tokens_.size());
    tokens_.push_back(token);
}

namespace {
// The character that ends at text[at], looking back over at most 4 bytes.
Char char_before(std::string_view text, size_t at) {
    for (size_t n = 1; n <= 4 && n <= at; n++)
        if (Char c = decode_char(text.data() + at - n, text.data() + at); c.code != ~0u && c.size == n)
            return c;
    return {~0u, 1};
}
bool is_white(Char c) {
    if (c.code == ~0u) return false;
    CharClass k = class_table()[c.code];
    return k == CharClass::space || k == CharClass::newline;
}
// \w: letters (also the circled ones), marks, decimal digits, connectors and the two joiners.
bool is_word(Char c) {
    if (c.code == ~0u) return false;
    uint32_t k = c.code;
    if (k == 0x200C || k == 0x200D || (k >= 0x24B6 && k <= 0x24E9) || (k >= 0x1F130 && k <= 0x1F149) ||
        (k >= 0x1F150 && k <= 0x1F169) || (k >= 0x1F170 && k <= 0x1F189))
        return true;
    auto category = utf8proc_category(int32_t(k));
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
           category == UTF8PROC_CATEGORY_PC;
}
} // namespace

std::vector<AddedMatcher::Match> AddedMatcher::find(std::string_view text, bool special) const {
    std::vector<Match> matches;
    const char* end_of_text = text.data() + text.size();
    size_t done = 0; // text before this belongs to a match already
    for (size_t at = 0; at < text.size();) {
        if (!starts_[uint8_t(text[at])]) {
            at++;
            continue;
        }
        int found = -1;
        size_t stop = at;
        for (size_t i = at, node = 0; i < text.size(); i++) {
            int to = child(int(node), uint8_t(text[i]));
            if (to < 0) break;
            node = size_t(to);
            if (nodes_[node].token >= 0) found = nodes_[node].token, stop = i + 1;
        }
        if (found < 0) {
            at++;
            continue;
        }
        auto& token = tokens_[size_t(found)];
        size_t begin = at, end = stop;
        at = stop;
        if (begin < done || (token.special && !special)) continue;
        if (token.single_word &&
            ((begin && is_word(char_before(text, begin))) ||
             (end < text.size() && is_word(decode_char(text.data() + end, end_of_text)))))
            continue;
        if (token.lstrip)
            for (Char c; begin > done && is_white(c = char_before(text, begin));) begin -= c.size;
        if (token.rstrip)
            for (Char c; end < text.size() && is_white(c = decode_char(text.data() + end, end_of_text));)
                end += c.size;
        matches.push_back({begin, end, token.id});
        done = end;
    }
    return matches;
}

} // namespace nvl
