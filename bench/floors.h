// What this machine can do at best: the floors that benchmarks and MFU are measured against.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/base/clock.h"
#include "engine/base/memory.h"
#include "engine/base/parallel.h"
#include "kernels/linear/gemm.h"

namespace nvl {

/// Bytes per second of y = a x + y over memory far larger than the caches (2 reads and 1 write per element),
/// best of 5.
inline double memory_bandwidth() {
    constexpr int64_t N = 16 << 20;
    static Memory x(N * 4), y(N * 4);
    auto *a = reinterpret_cast<float*>(x.data()), *b = reinterpret_cast<float*>(y.data());
    std::fill(a, a + N, 1.0f); // pages never written are all one page of zeros, which the caches hold
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        double start = seconds_now();
        parallel_for(N, 1 << 16, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; i++) b[i] = b[i] + 0.5f * a[i];
        });
        best = std::min(best, seconds_now() - start);
    }
    return 3.0 * N * 4 / best;
}

} // namespace nvl
