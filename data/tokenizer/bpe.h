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
    ChunkCache() : entries_(2 * SETS) {}
    /// The two entries where the chunk may be; `key` receives its key.
    Entry* set_of(std::string_view chunk, uint64_t (&key)[4]);

private:
    static constexpr size_t SETS = 1 << 14;
    std::vector<Entry> entries_;
};

class Bpe {
public:
    /// byte_ids: 256 ids, -1 where the vocabulary lacks the byte: such a byte is dropped, as the field's
    /// other implementations do. Rules are in order of rank; of two rules for one pair the later one counts.
    Bpe(std::vector<int> byte_ids, const std::vector<MergeRule>& rules);

    /// Appends the ids of `chunk`.
    void encode(std::string_view chunk, std::vector<int>& ids, ChunkCache& cache) const;

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
