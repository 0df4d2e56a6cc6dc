// Which pages of the key/value cache belong to which sequence.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nvl {

/// Hands out pages of PAGE tokens. A sequence grows page by page, so memory is bounded by tokens, not by
/// longest prompts.
class Pages {
public:
    Pages(int64_t pages, int64_t page_size);
    /// Lets `table` hold `tokens` tokens, adding pages as needed; an error that names the sizes when none is
    /// left.
    void grow(std::vector<int32_t>& table, int64_t tokens);
    /// Gives back the pages beyond `tokens`.
    void shrink(std::vector<int32_t>& table, int64_t tokens);
    int64_t free_pages() const { return int64_t(free_.size()); }
    /// The cache row of token `position` of a sequence.
    int32_t row(const std::vector<int32_t>& table, int64_t position) const {
        return int32_t(table[std::size_t(position / page_size_)] * page_size_ + position % page_size_);
    }

private:
    int64_t page_size_, total_;
    std::vector<int32_t> free_; // taken from the back; lowest numbers first
};

} // namespace nvl
