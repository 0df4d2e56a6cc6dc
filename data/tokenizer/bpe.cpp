#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

namespace nvl {

namespace {
constexpr uint64_t NO_PAIR = ~0ull;
constexpr uint32_t NO_RANK = ~0u;
constexpr size_t SHORT = 48; // up to here looking at all pairs beats a heap
uint64_t pair_of(int left, int right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }
} // namespace

ChunkCache::Entry* ChunkCache::set_of(std::string_view chunk, uint64_t (&key)[4]) {
    auto* bytes = reinterpret_cast<char*>(key);
    std::memset(key, 0, sizeof key);
    std::memcpy(bytes, chunk.data(), chunk.size());
    bytes[LONGEST] = char(chunk.size());
    uint64_t h = key[0] * 0x9E3779B97F4A7C15ull ^ std::rotl(key[1] * 0xC2B2AE3D27D4EB4Full, 23);
    h ^= std::rotl(key[2] * 0x165667B19E3779F9ull, 41) ^ key[3] * 0xD6E8FEB86659FD93ull;
    h *= 0x9E3779B97F4A7C15ull;
    return &entries_[2 * (h >> 50)];
}
static_assert(sizeof(ChunkCache::Entry) == 64);

bool ChunkCache::find(std::string_view chunk, Place& place, std::vector<int>& ids) {
    if (chunk.size() > LONGEST) return false;
    place.set = set_of(chunk, place.key);
    for (int way = 0; way < 2; way++) {
        auto& entry = place.set[way];
        if (std::memcmp(entry.key, place.key, sizeof entry.key) == 0) {
            ids.insert(ids.end(), entry.ids, entry.ids + entry.count);
            return true;
        }
    }
    return false;
}
void ChunkCache::keep(const Place& place, const int* ids, size_t n) {
    if (!place.set || n > MOST) return;
    place.set[1] = place.set[0]; // the newer chunk first
    std::memcpy(place.set[0].key, place.key, sizeof place.key);
    place.set[0].count = int32_t(n);
    std::copy(ids, ids + n, place.set[0].ids);
}

Bpe::Bpe(std::vector<int> byte_ids, const std::vector<MergeRule>& rules, const std::vector<uint32_t>& ranks)
    : byte_ids_(std::move(byte_ids)) {
    size_t size = std::bit_ceil(std::max<size_t>(16, 2 * rules.size()));
    shift_ = 64 - std::countr_zero(size);
    table_.assign(size, {NO_PAIR, NO_RANK, -1});
    for (size_t rank = 0; rank < rules.size(); rank++) {
        uint64_t pair = pair_of(rules[rank].left, rules[rank].right);
        size_t i = pair * 0x9E3779B97F4A7C15ull >> shift_;
        while (table_[i].pair != NO_PAIR && table_[i].pair != pair) i = (i + 1) & (size - 1);
        table_[i] = {pair, ranks.empty() ? uint32_t(rank) : ranks[rank], rules[rank].result};
    }
}

const Bpe::Slot* Bpe::find(int left, int right) const {
    uint64_t pair = pair_of(left, right);
    for (size_t i = pair * 0x9E3779B97F4A7C15ull >> shift_;; i = (i + 1) & (table_.size() - 1)) {
        if (table_[i].pair == pair) return &table_[i];
        if (table_[i].pair == NO_PAIR) return nullptr;
    }
}

// ranks[i] belongs to the pair (ids[i], ids[i + 1]).
void Bpe::merge_short(int* ids, size_t& n) const {
    const Slot* rule[SHORT];
    uint32_t ranks[SHORT];
    auto look = [&](size_t i) {
        rule[i] = i + 1 < n ? find(ids[i], ids[i + 1]) : nullptr;
        ranks[i] = rule[i] ? rule[i]->rank : NO_RANK;
    };
    for (size_t i = 0; i < n; i++) look(i);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == NO_RANK) return;
        ids[best] = rule[best]->result;
        n--;
        for (size_t i = best + 1; i < n; i++)
            ids[i] = ids[i + 1], ranks[i] = ranks[i + 1], rule[i] = rule[i + 1];
        look(best);
        if (best) look(best - 1);
    }
}

// A doubly linked list of symbols and a heap of candidate rules, each checked again when it comes up.
void Bpe::merge_long(std::vector<int>& ids) const {
    struct Symbol {
        int id;
        uint32_t previous, next;
    };
    struct Candidate {
        uint32_t rank, at;
        int left, right;
        bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
    };
    const auto n = uint32_t(ids.size());
    std::vector<Symbol> symbols(n);
    std::vector<Candidate> heap;
    auto candidate = [&](uint32_t i) -> bool {
        uint32_t j = symbols[i].next;
        if (j >= n) return false;
        const Slot* rule = find(symbols[i].id, symbols[j].id);
        if (rule) heap.push_back({rule->rank, i, symbols[i].id, symbols[j].id});
        return rule;
    };
    for (uint32_t i = 0; i < n; i++) symbols[i] = {ids[i], i - 1, i + 1};
    for (uint32_t i = 0; i < n; i++) candidate(i);
    std::make_heap(heap.begin(), heap.end());
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end());
        Candidate c = heap.back();
        heap.pop_back();
        Symbol& s = symbols[c.at];
        if (s.id != c.left || s.next >= n || symbols[s.next].id != c.right) continue;
        Symbol& gone = symbols[s.next];
        s.id = find(c.left, c.right)->result;
        s.next = gone.next;
        gone.id = -1;
        if (s.next < n) symbols[s.next].previous = c.at;
        if (candidate(c.at)) std::push_heap(heap.begin(), heap.end());
        if (s.previous < n && candidate(s.previous)) std::push_heap(heap.begin(), heap.end());
    }
    ids.clear();
    for (uint32_t i = 0; i < n; i = symbols[i].next) ids.push_back(symbols[i].id);
}

void Bpe::encode(std::string_view chunk, std::vector<int>& ids, ChunkCache& cache) const {
    if (chunk.size() == 1) {
        if (int id = byte_ids_[uint8_t(chunk[0])]; id >= 0) ids.push_back(id);
        return;
    }
    if (chunk.size() > SHORT) {
        std::vector<int> symbols;
        symbols.reserve(chunk.size());
        for (char c : chunk)
            if (int id = byte_ids_[uint8_t(c)]; id >= 0) symbols.push_back(id);
        if (symbols.size() > 1) merge_long(symbols);
        ids.insert(ids.end(), symbols.begin(), symbols.end());
        return;
    }
    ChunkCache::Place place;
    if (cache.find(chunk, place, ids)) return;
    int symbols[SHORT];
    size_t n = 0;
    for (char c : chunk)
        if (int id = byte_ids_[uint8_t(c)]; id >= 0) symbols[n++] = id;
    merge_short(symbols, n);
    ids.insert(ids.end(), symbols, symbols + n);
    ChunkCache::keep(place, symbols, n);
}

void Bpe::merge(std::vector<int>& ids) const {
    if (ids.size() > SHORT) return merge_long(ids);
    size_t n = ids.size();
    merge_short(ids.data(), n);
    ids.resize(n);
}

} // namespace nvl
