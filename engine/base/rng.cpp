#include "engine/base/rng.h"

#include <bit>

#include "engine/base/check.h"

namespace nvl {

uint64_t permuted(uint64_t i, uint64_t n, uint64_t seed) {
    check(i < n, "permuted: index %lu of %lu", (unsigned long)i, (unsigned long)n);
    if (n == 1) return 0;
    int half = (std::bit_width(n - 1) + 1) / 2;
    uint64_t mask = (uint64_t(1) << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            auto r = philox(seed, right, round);
            uint64_t next = left ^ ((uint64_t(r[0]) << 32 | r[1]) & mask);
            left = right, right = next;
        }
        i = left << half | right;
    } while (i >= n); // the network permutes [0, 4^half); walk the cycle until it is back inside
    return i;
}

} // namespace nvl
