// The two words that attention's matrix products are made of: a small product of operands that lie in L1 or
// L2, and packing of rows in any storage type to f32.
//
// An element of a product is a chain of fused multiply-adds over k, in order, whatever tile it falls into.
// Hence a call may be cut along rows, columns or k (with Start::add) without changing a bit.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace nvl::tile {

constexpr int64_t padded(int64_t n) { return (n + simd::LANES - 1) / simd::LANES * simd::LANES; }

enum class Start { zero, add, scale }; // C = AB, C += AB, C = diag(alpha) C + AB

/// A(i, k) = a[i * row + k * step], B(k, j) = b[k * ldb + j], C(i, j) = c[i * ldc + j].
struct Product {
    int64_t M, N, K; // N a multiple of 16
    const float* a;
    int64_t row, step;
    const float* b;
    int64_t ldb;
    float* c;
    int64_t ldc;
    Start start = Start::zero;
    const float* alpha = nullptr; // (M)
};
void product(const Product& p);

/// Rows of a product that are computed at a time.
extern const int ROWS;

/// Asks for rows [from, to) to be brought to L2: rows of one head lie apart, which hardware does not foresee.
template <class X> void prefetch_rows(const X* in, int64_t ld, int64_t from, int64_t to, int64_t cols) {
    for (int64_t i = from; i < to; i++)
        for (int64_t c = 0; c < cols; c += 64 / int64_t(sizeof(X))) __builtin_prefetch(in + i * ld + c, 0, 2);
}

/// Reads rows in the order of memory to have them in L2.
template <class X> void touch_rows(const X* in, int64_t ld, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < cols; c += 64 / int64_t(sizeof(X))) {
            auto* line = reinterpret_cast<const volatile char*>(in + i * ld + c);
            (void)*line;
        }
}

/// out[i * ldo + c] = scale * in[i * ldi + c] for i < n, c < cols; up to padded(cols) zeros.
template <class X> void pack_row(float* out, const X* in, int64_t cols, float scale) {
    using namespace simd;
    int64_t c = 0;
    for (; c + LANES <= cols; c += LANES) store(out + c, load(in + c) * all(scale));
    if (c < cols) store(out + c, load_first(in + c, cols - c) * all(scale));
}
/// n rows, then zeros up to `rows`.
template <class X>
void pack_rows(float* out, int64_t ldo, const X* in, int64_t ldi, int64_t n, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < n; i++) pack_row(out + i * ldo, in + i * ldi, cols, 1.f);
    if (n < rows) std::memset(out + n * ldo, 0, size_t((rows - n) * ldo) * sizeof(float));
}
/// out[c * ldo + i] = in[i * ldi + c] for i < n, zeros up to padded(n); c < cols.
template <class X>
void pack_transposed(float* out, int64_t ldo, const X* in, int64_t ldi, int64_t n, int64_t cols) {
    using namespace simd;
    for (int64_t i = 0; i < n; i += LANES)
        for (int64_t c = 0; c < cols; c += LANES) {
            f32x16 r[LANES];
            int64_t width = cols - c < LANES ? cols - c : LANES;
            if (i + LANES <= n && width == LANES) {
#pragma GCC unroll 16
                for (int64_t k = 0; k < LANES; k++) r[k] = load(in + (i + k) * ldi + c);
                transpose(r);
#pragma GCC unroll 16
                for (int64_t k = 0; k < LANES; k++) store(out + (c + k) * ldo + i, r[k]);
            } else {
                for (int64_t k = 0; k < LANES; k++)
                    r[k] = i + k < n ? load_first(in + (i + k) * ldi + c, width) : f32x16{};
                transpose(r);
                for (int64_t k = 0; k < width; k++) store(out + (c + k) * ldo + i, r[k]);
            }
        }
}

/// to[c] = scale * from[c], or += with `add`, for c < cols; `to` in storage type.
template <class X> void unpack_row(X* to, const float* from, int64_t cols, float scale, bool add) {
    using namespace simd;
    int64_t c = 0;
    for (; c + LANES <= cols; c += LANES) {
        f32x16 v = load(from + c) * all(scale);
        store(to + c, add ? load(to + c) + v : v);
    }
    if (c < cols) {
        f32x16 v = load(from + c) * all(scale);
        store_first(to + c, add ? load_first(to + c, cols - c) + v : v, cols - c);
    }
}

} // namespace nvl::tile
