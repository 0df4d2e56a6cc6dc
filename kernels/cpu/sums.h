// Sums with a fixed order: 16 interleaved partial sums, then a tree. One vector register wide on AVX-512, two
// on AVX2; the order is part of the definition, so bits depend on the length alone.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/base/parallel.h"

namespace nvl {

/// sum over c in [0, n) of value(c), in type A.
template <class A, class F> inline A lane_sum(int64_t n, F value) {
    constexpr int LANES = 16;
    A lane[LANES] = {};
    int64_t c = 0;
    for (; c + LANES <= n; c += LANES)
        for (int l = 0; l < LANES; l++) lane[l] += value(c + l);
    for (int l = 0; c + l < n; l++) lane[l] += value(c + l);
    for (int width = LANES / 2; width; width /= 2)
        for (int l = 0; l < width; l++) lane[l] += lane[l + width];
    return lane[0];
}

/// Sums over rows, for the gradient of a per-channel weight: rows are cut into fixed blocks of BLOCK, each
/// block is summed in row order, blocks are added in order. body(i, sums) adds row i to sums[0..cols).
/// Threads change no bit.
template <class A, class F, class G> void block_sums(int64_t rows, int64_t cols, F body, G store) {
    constexpr int64_t BLOCK = 64;
    int64_t blocks = (rows + BLOCK - 1) / BLOCK;
    std::vector<A> sums(size_t(std::max<int64_t>(1, blocks) * cols));
    parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; b++)
            for (int64_t i = b * BLOCK; i < std::min(rows, (b + 1) * BLOCK); i++)
                body(i, sums.data() + b * cols);
    });
    for (int64_t b = 1; b < blocks; b++)
        for (int64_t c = 0; c < cols; c++) sums[size_t(c)] += sums[size_t(b * cols + c)];
    store(sums.data());
}

} // namespace nvl
