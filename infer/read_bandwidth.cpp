#include "infer/read_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "engine/base/clock.h"
#include "engine/base/memory.h"
#include "engine/base/parallel.h"

namespace nvl {

double read_bandwidth() {
    constexpr int64_t BYTES = 128 << 20, BLOCK = 1 << 20, WORDS = BLOCK / 8;
    Memory memory(BYTES);
    std::memset(memory.data(), 1, BYTES);
    std::atomic<uint64_t> total = 0; // so that the reads are not dropped
    double best = 1e9;
    for (int round = 0; round < 3; round++) {
        double begin = seconds_now();
        parallel_for(BYTES / BLOCK, 1, [&](int64_t from, int64_t to) {
            uint64_t sums[32] = {};
            for (int64_t b = from; b < to; b++) {
                auto* words = reinterpret_cast<const uint64_t*>(memory.data() + b * BLOCK);
                for (int64_t i = 0; i < WORDS; i += 32)
                    for (int64_t k = 0; k < 32; k++) sums[k] += words[i + k];
            }
            for (uint64_t s : sums) total += s;
        });
        best = std::min(best, seconds_now() - begin);
    }
    return double(BYTES) / best;
}

} // namespace nvl
