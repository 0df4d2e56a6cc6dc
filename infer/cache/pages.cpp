#include "infer/cache/pages.h"

#include "engine/base/check.h"

namespace nvl {

Pages::Pages(int64_t pages, int64_t page_size) : page_size_(page_size), total_(pages) {
    for (int64_t p = pages; p-- > 0;) free_.push_back(int32_t(p));
}
void Pages::grow(std::vector<int32_t>& table, int64_t tokens) {
    auto needed = size_t((tokens + page_size_ - 1) / page_size_);
    if (needed <= table.size()) return;
    check(needed - table.size() <= free_.size(),
          "the cache is full: a sequence of %ld tokens needs %zu more pages of %ld, %zu of %ld are free; "
          "shorten the prompt or "
          "enlarge the cache",
          tokens, needed - table.size(), page_size_, free_.size(), total_);
    while (table.size() < needed) table.push_back(free_.back()), free_.pop_back();
}
void Pages::shrink(std::vector<int32_t>& table, int64_t tokens) {
    auto needed = size_t((tokens + page_size_ - 1) / page_size_);
    while (table.size() > needed) free_.push_back(table.back()), table.pop_back();
}

} // namespace nvl
