// Byte-pair merging of one chunk: start from the ids of its bytes; while some adjacent pair has a rule, apply
// the rule of the lowest rank at its leftmost place.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nvl {

struct MergeRule {
    int left, right, result;
};

/// Remembers what short chunks became. One per thread; a full set forgets its older half, so memory is
/// bounded.
class ChunkCache {
public:
    static constexpr size_t LONGEST = 31, MOST = 7; // bytes of a chunk, ids of it
    struct Entry {
        uint64_t key[4] = {}; // the chunk's bytes and its length in the last one; all zero: empty
        int32_t count = 0, ids[MOST] = {};
    };
    /// Where a chunk may be: a set of two entries, none for a chunk that is too long.
    struct Place {
        Entry* set = nullptr;
        uint64_t key[4];
    };
    ChunkCache() : entries_(2 * SETS) {}
    /// Appends the chunk's ids if they are known; `place` receives where they are, or may be kept.
    bool find(std::string_view chunk, Place& place, std::vector<int>& ids);
    static void keep(const Place& place, const int* ids, size_t n);

private:
    Entry* set_of(std::string_view chunk, uint64_t (&key)[4]);
    static constexpr size_t SETS = 1 << 14;
    std::vector<Entry> entries_;
};

class Bpe {
public:
    /// byte_ids: 256 ids, -1 where the vocabulary lacks the byte: such a byte is dropped, as the field's
    /// other implementations do. Rules are in order of rank; of two rules for one pair the later one counts.
    /// Rules that share a rank (`ranks` not empty) are applied leftmost first.
    Bpe(std::vector<int> byte_ids, const std::vector<MergeRule>& rules,
        const std::vector<uint32_t>& ranks = {});

    /// Appends the ids of `chunk`.
    void encode(std::string_view chunk, std::vector<int>& ids, ChunkCache& cache) const;
    /// Merges a chunk's symbols in place.
    void merge(std::vector<int>& ids) const;

private:
    struct Slot {
        uint64_t pair;
        uint32_t rank;
        int32_t result;
    };
    const Slot* find(int left, int right) const;
    void merge_short(int* ids, size_t& n) const;
    void merge_long(std::vector<int>& ids) const;

    std::vector<int> byte_ids_;
    std::vector<Slot> table_; // open addressing, at most half full
    int shift_ = 0;
};

} // namespace nvl
