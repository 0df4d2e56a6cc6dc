#include "data/tokenizer/pieces.h"

#include <algorithm>
#include <numeric>

#include "data/tokenizer/unicode.h"
#include "engine/base/check.h"
#include "engine/io/printable.h"

namespace nvl {

int byte_of_piece(std::string_view piece) {
    if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
    int value = 0;
    for (char c : piece.substr(3, 2)) {
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
    std::string out;
    out.reserve(text.size() + text.size() / 2);
    for (size_t at = 0; at < text.size();) {
        size_t found = std::min(text.find(from, at), text.size());
        out.append(text.substr(at, found - at));
        if (found < text.size()) out.append(to);
        at = found + from.size();
    }
    return out;
}

PieceBpe::PieceBpe(const std::vector<std::string>& vocabulary, const std::vector<std::pair<int, int>>& merges,
                   const PieceOptions& options, const std::vector<uint8_t>& ordinary, int unknown,
                   const std::string& source)
    : source_(source), size_(int(vocabulary.size())), unknown_(unknown), split_(options.split),
      fuse_(options.fuse_unknown) {
    Ids id_of;
    id_of.reserve(vocabulary.size());
    std::ranges::fill(byte_ids_, -1);
    for (size_t i = 0; i < vocabulary.size(); i++) {
        const std::string& piece = vocabulary[i];
        if (int byte = byte_of_piece(piece); byte >= 0 && options.byte_fallback) byte_ids_[byte] = int(i);
        if (piece.empty() || (!options.scores.empty() && !ordinary[i])) continue;
        auto [at, fresh] = id_of.emplace(piece, int(i));
        check(fresh, "%s: the piece '%s' has two ids, %d and %zu", source.c_str(), printable(piece).c_str(),
              at->second, i);
        Char c = decode_char(piece.data(), piece.data() + piece.size());
        if (c.code != ~0u && c.size == piece.size()) characters_.emplace(c.code, int(i));
    }
    if (options.scores.empty())
        rules_of_merges(vocabulary, merges, id_of);
    else
        rules_of_scores(vocabulary, options, ordinary);
    for (auto& rule : rules_) {
        std::string_view piece = vocabulary[size_t(rule.result)];
        for (size_t at = 1; (at = piece.find(SPACE_PIECE, at)) != piece.npos; at++)
            if (!piece.substr(0, at).ends_with(SPACE_PIECE)) joins_[uint8_t(piece[at - 1])] = true;
    }
    bpe_ = std::make_unique<Bpe>(std::vector<int>(256, -1), rules_, ranks_);
}

void PieceBpe::rules_of_merges(const std::vector<std::string>& vocabulary,
                               const std::vector<std::pair<int, int>>& merges, const Ids& id_of) {
    for (auto [a, b] : merges) {
        std::string joined = vocabulary[size_t(a)] + vocabulary[size_t(b)];
        auto result = id_of.find(joined);
        check(result != id_of.end(), "%s: merge %zu makes '%s', which is not in the vocabulary",
              source_.c_str(), rules_.size(), printable(joined).c_str());
        rules_.push_back({a, b, result->second});
    }
}

// Every way to cut a piece in two pieces is a rule with the rank of the whole's score. A character that is
// no piece but stands in one takes part under an id of its own, and falls back to bytes where nothing took
// it.
void PieceBpe::rules_of_scores(const std::vector<std::string>& vocabulary, const PieceOptions& options,
                               const std::vector<uint8_t>& ordinary) {
    std::vector<float> order;
    for (size_t i = 0; i < vocabulary.size(); i++) {
        if (!ordinary[i]) continue;
        check(options.scores[i] == options.scores[i], "%s: the score of the piece %zu is not a number",
              source_.c_str(), i);
        order.push_back(options.scores[i]);
    }
    std::ranges::sort(order, std::greater<>());
    order.erase(std::ranges::unique(order).begin(), order.end());
    Ids id_of;
    id_of.reserve(vocabulary.size());
    for (size_t i = 0; i < vocabulary.size(); i++)
        if (ordinary[i] && !vocabulary[i].empty()) id_of.emplace(vocabulary[i], int(i));
    auto find = [&](std::string_view part) {
        auto at = id_of.find(part);
        if (at != id_of.end()) return at->second;
        Char c = decode_char(part.data(), part.data() + part.size());
        if (c.code == ~0u || c.size != part.size()) return -1;
        auto [character, fresh] = characters_.emplace(c.code, size_ + int(nameless_.size()));
        if (fresh) nameless_.emplace_back(part);
        return character->second;
    };
    for (size_t i = 0; i < vocabulary.size(); i++) {
        if (!ordinary[i]) continue;
        std::string_view piece = vocabulary[i];
        auto rank = std::ranges::lower_bound(order, options.scores[i], std::greater<>()) - order.begin();
        for (size_t cut = 1; cut < piece.size(); cut++) {
            if ((uint8_t(piece[cut]) & 0xC0) == 0x80) continue; // inside a character
            int left = find(piece.substr(0, cut)), right = left < 0 ? -1 : find(piece.substr(cut));
            if (right < 0) continue;
            rules_.push_back({left, right, int(i)});
            ranks_.push_back(uint32_t(rank));
        }
    }
}

std::vector<std::pair<int, int>> PieceBpe::merges() const {
    std::vector<size_t> order(rules_.size());
    std::iota(order.begin(), order.end(), 0);
    if (!ranks_.empty()) std::ranges::stable_sort(order, {}, [&](size_t i) { return ranks_[i]; });
    std::vector<std::pair<int, int>> list;
    for (size_t i : order)
        if (rules_[i].left < size_ && rules_[i].right < size_)
            list.emplace_back(rules_[i].left, rules_[i].right);
    return list;
}

int PieceBpe::missing_bytes() const { return unknown_ >= 0 ? 0 : int(std::ranges::count(byte_ids_, -1)); }

void PieceBpe::put_unknown(std::string_view character, std::vector<int>& symbols) const {
    bool spelled = std::ranges::all_of(character, [&](char c) { return byte_ids_[uint8_t(c)] >= 0; });
    if (spelled)
        for (char c : character) symbols.push_back(byte_ids_[uint8_t(c)]);
    else if (unknown_ >= 0 && !(fuse_ && !symbols.empty() && symbols.back() == unknown_))
        symbols.push_back(unknown_);
}

void PieceBpe::symbols_of(std::string_view chunk, std::vector<int>& symbols) const {
    for (const char *p = chunk.data(), *end = p + chunk.size(); p < end;) {
        Char c = decode_char(p, end);
        auto at = c.code == ~0u ? characters_.end() : characters_.find(c.code);
        if (at != characters_.end())
            symbols.push_back(at->second);
        else
            put_unknown({p, c.size}, symbols);
        p += c.size;
    }
}

void PieceBpe::encode_chunk(std::string_view chunk, std::vector<int>& ids, ChunkCache& cache) const {
    ChunkCache::Place place;
    if (cache.find(chunk, place, ids)) return;
    std::vector<int> symbols;
    symbols_of(chunk, symbols);
    bpe_->merge(symbols);
    size_t before = ids.size();
    for (int id : symbols)
        if (id < size_)
            ids.push_back(id);
        else
            put_unknown(nameless_[size_t(id - size_)], ids);
    ChunkCache::keep(place, ids.data() + before, ids.size() - before);
}

// Between a character and a space, unless some piece has the two inside it: merges never cross there.
bool PieceBpe::may_cut(std::string_view text, size_t at) const {
    if (text.substr(at, 3) != SPACE_PIECE) return false;
    if (split_) return true;
    return !text.substr(0, at).ends_with(SPACE_PIECE) && !joins_[uint8_t(text[at - 1])];
}

size_t PieceBpe::safe_cut(std::string_view text, size_t from) const {
    for (size_t at = std::max<size_t>(from, 1); at < text.size(); at++) {
        at = text.find(SPACE_PIECE, at);
        if (at == text.npos) break;
        if (may_cut(text, at)) return at;
    }
    return text.size();
}

void PieceBpe::encode(std::string_view text, std::vector<int>& ids, ChunkCache& cache) const {
    // unknown characters on both sides of a cut would not be fused: then the text is one chunk
    bool whole = fuse_ && !split_ && unknown_ >= 0 && std::ranges::count(byte_ids_, -1);
    for (size_t begin = 0; begin < text.size();) {
        size_t end = whole ? text.size() : safe_cut(text, begin + 1);
        encode_chunk(text.substr(begin, end - begin), ids, cache);
        begin = end;
    }
}

} // namespace nvl
