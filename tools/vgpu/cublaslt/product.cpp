#include "tools/vgpu/cublaslt/product.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tools/vgpu/cublaslt/halves.h"

namespace vgpu::cublaslt {

float get(Type t, const void* p, size_t i) {
    if (t == Type::f32) return static_cast<const float*>(p)[i];
    uint16_t bits = static_cast<const uint16_t*>(p)[i];
    return t == Type::bf16 ? from_bf16(bits) : from_f16(bits);
}

void set(Type t, void* p, size_t i, float value) {
    if (t == Type::f32)
        static_cast<float*>(p)[i] = value;
    else
        static_cast<uint16_t*>(p)[i] = t == Type::bf16 ? to_bf16(value) : to_f16(value);
}

namespace {

constexpr int64_t MR = 32, NR = 4, MB = 128, KB = 256; // a tile of registers; a block of A in L2

float tf32(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    u = (u + 0x1000) & ~0x1fffu; // to nearest, ties away from zero, as cvt.rna.tf32
    std::memcpy(&x, &u, 4);
    return x;
}

/// Calls f with a function that reads op(o)(row, col), of the right type: what is decided here is not decided
/// again for each element.
template <class F> void with_elements(const Operand& o, F f) {
    int64_t row_step = o.transposed ? o.ld : 1, col_step = o.transposed ? 1 : o.ld;
    auto at = [=](int64_t row, int64_t col) { return row * row_step + col * col_step; };
    auto* x = static_cast<const float*>(o.data);
    auto* h = static_cast<const uint16_t*>(o.data);
    if (o.type == Type::bf16)
        f([=](int64_t r, int64_t c) { return from_bf16(h[at(r, c)]); });
    else if (o.type == Type::f16)
        f([=](int64_t r, int64_t c) { return from_f16(h[at(r, c)]); });
    else if (o.tf32)
        f([=](int64_t r, int64_t c) { return tf32(x[at(r, c)]); });
    else
        f([=](int64_t r, int64_t c) { return x[at(r, c)]; });
}

// Panels of MR rows, k by k: panel[p][k][MR]; rows beyond m are zero. Read along the dense direction.
void pack_rows(float* panel, const Operand& a, int64_t row, int64_t rows, int64_t k0, int64_t ks) {
    with_elements(a, [&](auto element) {
        for (int64_t p = 0; p < rows; p += MR, panel += MR * ks) {
            int64_t here = std::min(MR, rows - p);
            if (here < MR) std::fill_n(panel, MR * ks, 0.f);
            if (a.transposed)
                for (int64_t i = 0; i < here; i++)
                    for (int64_t k = 0; k < ks; k++) panel[k * MR + i] = element(row + p + i, k0 + k);
            else
                for (int64_t k = 0; k < ks; k++)
                    for (int64_t i = 0; i < here; i++) panel[k * MR + i] = element(row + p + i, k0 + k);
        }
    });
}

void pack_cols(float* panel, const Operand& b, int64_t cols, int64_t k0, int64_t ks) {
    with_elements(b, [&](auto element) {
        for (int64_t p = 0; p < cols; p += NR)
            for (int64_t k = 0; k < ks; k++, panel += NR)
                for (int64_t j = 0; j < NR; j++) panel[j] = p + j < cols ? element(k0 + k, p + j) : 0;
    });
}

using Vector = float __attribute__((vector_size(64)));

__attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default"))) void
tile(float* c, int64_t ld, const float* a, const float* b, int64_t ks, int64_t rows, int64_t cols) {
    constexpr int W = MR / 16;
    Vector sum[NR][W] = {};
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++) sum[j][i / 16][i % 16] = c[j * ld + i];
    for (int64_t k = 0; k < ks; k++, a += MR, b += NR) {
        Vector x[W];
        std::memcpy(x, a, sizeof x);
        for (int j = 0; j < NR; j++)
            for (int w = 0; w < W; w++) sum[j][w] += x[w] * b[j];
    }
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++) c[j * ld + i] = sum[j][i / 16][i % 16];
}

} // namespace

void product(float* sums, const Operand& a, const Operand& b, int64_t m, int64_t n, int64_t k, int threads) {
    std::memset(sums, 0, size_t(m * n) * sizeof *sums);
    std::vector<float> packed(size_t((n + NR - 1) / NR * NR * std::min(k, KB)));
    int64_t blocks = (m + MB - 1) / MB;
    threads = int(std::min<int64_t>(std::max(threads, 1), blocks));
    for (int64_t k0 = 0; k0 < k; k0 += KB) {
        int64_t ks = std::min(KB, k - k0);
        pack_cols(packed.data(), b, n, k0, ks);
        std::atomic<int64_t> next = 0;
        auto work = [&] {
            std::vector<float> panel(size_t(MB * ks));
            for (int64_t i; (i = next++) < blocks;) {
                int64_t row = i * MB, rows = std::min(MB, m - row);
                pack_rows(panel.data(), a, row, rows, k0, ks);
                for (int64_t j = 0; j < n; j += NR)
                    for (int64_t p = 0; p < rows; p += MR)
                        tile(sums + row + p + j * m, m, panel.data() + p * ks, packed.data() + j * ks, ks,
                             std::min(MR, rows - p), std::min(NR, n - j));
            }
        };
        std::vector<std::thread> others;
        for (int t = 1; t < threads; t++) others.emplace_back(work);
        work();
        for (auto& t : others) t.join();
    }
}

} // namespace vgpu::cublaslt
