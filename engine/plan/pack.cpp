#include <algorithm>
#include <numeric>

#include "engine/plan/program.h"

namespace nvl {

int64_t pack(std::vector<Item>& items) {
    std::vector<size_t> order(items.size()), placed; // placed: sorted by offset
    std::iota(order.begin(), order.end(), size_t(0));
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return std::pair(-items[a].bytes, a) < std::pair(-items[b].bytes, b);
    });
    int64_t peak = 0;
    for (size_t i : order) {
        Item& x = items[i];
        int64_t at = 0;
        for (size_t p : placed) {
            const Item& o = items[p];
            if (o.last < x.first || x.last < o.first) continue;
            if (at + x.bytes <= o.offset) break;
            at = std::max(at, o.offset + o.bytes);
        }
        x.offset = at;
        peak = std::max(peak, at + x.bytes);
        auto by_offset = [&](int64_t v, size_t p) { return v < items[p].offset; };
        placed.insert(std::upper_bound(placed.begin(), placed.end(), at, by_offset), i);
    }
    return peak;
}

} // namespace nvl
