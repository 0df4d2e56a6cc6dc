#include "kernels/attention/tile.h"

#include <algorithm>
#include <array>
#include <utility>

namespace nvl::tile {

using namespace simd;

namespace {

// Rows x vectors of accumulators: 28 of the 32 registers of AVX-512, 12 of the 16 of AVX2.
#if defined(__AVX512F__)
constexpr int MR = 7, NR = 4;
#elif defined(__AVX__)
constexpr int MR = 3, NR = 2;
#else
constexpr int MR = 2, NR = 1;
#endif

template <int M, int N> void block(const Product& product) {
    const Product p = product; // a copy: stores to c cannot change it
    f32x16 c[M][N];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        f32x16 scale = p.start == Start::scale ? all(p.alpha[i]) : all(1.f);
#pragma GCC unroll 4
        for (int j = 0; j < N; j++)
            c[i][j] = p.start == Start::zero ? f32x16{} : load(p.c + i * p.ldc + LANES * j) * scale;
    }
    const float *a = p.a, *b = p.b;
    for (int64_t k = 0; k < p.K; k++, a += p.step, b += p.ldb) {
        f32x16 row[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) row[j] = load(b + LANES * j);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            f32x16 x = all(a[i * p.row]);
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) c[i][j] = fma(x, row[j], c[i][j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) store(p.c + i * p.ldc + LANES * j, c[i][j]);
}

using Block = void (*)(const Product&);
template <int M, int... N> constexpr std::array<Block, NR> row_of(std::integer_sequence<int, N...>) {
    return {block<M, N + 1>...};
}
template <int... M> constexpr std::array<std::array<Block, NR>, MR> table(std::integer_sequence<int, M...>) {
    return {row_of<M + 1>(std::make_integer_sequence<int, NR>())...};
}
constexpr auto BLOCKS = table(std::make_integer_sequence<int, MR>());

} // namespace

const int ROWS = MR;

void product(const Product& p) {
    int64_t panels = (p.M + MR - 1) / MR;
    for (int64_t j = 0; j < p.N; j += NR * LANES) {
        auto vectors = size_t(std::min<int64_t>(NR, (p.N - j) / LANES));
        for (int64_t n = 0, i = 0; n < panels; n++) { // panels of equal height, within one row
            int64_t end = p.M * (n + 1) / panels;
            Product q = p;
            q.a += i * p.row, q.b += j, q.c += i * p.ldc + j;
            if (p.alpha) q.alpha += i;
            BLOCKS[size_t(end - i - 1)][vectors - 1](q);
            i = end;
        }
    }
}

} // namespace nvl::tile
