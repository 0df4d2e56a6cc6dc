// What a variant of the inner loops offers to the blocked driver (gemm_driver.cpp). Variants are one source,
// gemm_impl.h, compiled for different instruction sets.
//
// Operands are packed to 32-bit words: an f32, or two bf16 (k low, k + 1 high). A panel holds up to MR rows
// of A as [word][width(rows)], or NR columns of B as [word][NR].
#pragma once
#include <cstdint>

#include "engine/base/dtype.h"
#include "kernels/linear/gemm.h"

namespace nvl {

constexpr int GEMM_MAX_LEVELS = 3;

/// The cache lines of a rectangle of memory, row by row. The kernel asks for one every few steps of K: asked
/// for at once, they fill the queue of misses, and the panels' own loads wait behind them.
struct GemmLines {
    const char* at = nullptr;
    int64_t left = 0;          // lines not asked for yet
    int64_t line = 0, row = 0; // left in this row, in every row
    int64_t skip = 0;          // bytes from the last line of a row to the next row
    GemmLines() = default;
    GemmLines(const void* data, int64_t rows, int64_t stride, int64_t bytes)
        : at(static_cast<const char*>(data)), row((bytes + 63) / 64) {
        left = rows * row, line = row, skip = stride - (row - 1) * 64;
    }
};

/// One call of the micro-kernel: `leaves` chains of `words` words for a tile of rows x (panels * NR), summed
/// as a tree, then the tree's upper levels added, then stored.
struct GemmTile {
    const uint32_t *a, *b;
    int64_t words;
    int leaves;                       // a power of two
    int64_t b_panel;                  // words between panels of B
    int64_t prefetch_b, prefetch_far; // words ahead, into L1 and into L2
    const float* init;                // tile to go on from (a leaf longer than one cache block), or null
    float* local;                     // GEMM_MAX_LEVELS x panels tiles for the tree inside this call
    int merges;                       // levels above it that are complete ...
    const float* merge[GEMM_MAX_LEVELS];
    int64_t tile_panel; // floats between panels of init and merge (their rows are NR apart)
    float* out;
    int64_t out_row, out_panel; // elements between rows, between panels
    const float* bias;          // added to every row before it is stored, or null
    bool out_bf16;              // out is bf16, rounded here
    GemmLines written;          // lines of C that the tile ends in
    GemmLines* read;            // lines of an operand that is packed next, and how many to ask for
    int64_t reads;
};
using GemmKernel = void (*)(const GemmTile&);

/// What happens to a finished tile on its way to C.
struct GemmEpilogue {
    void* c;
    int64_t ldc;
    Dtype out;
    bool accumulate;
    const float* bias; // f32, readable up to a multiple of NR; or null
    const void* residual;
    int64_t ldr;
    Epilogue activation;
};

struct GemmVariant {
    const char* name;
    bool (*supported)();
    int MR, NR;
    int rows_of_2, rows_of_4; // most rows for which 2 or 4 panels are computed at a time (few rows: latency)
    int (*width)(int rows);   // of a panel of A with so many rows
    GemmKernel (*kernel)(Dtype in, int rows, int panels);
    /// Packs n <= width rows (K contiguous), or columns if k_major, to out[word * width + i].
    void (*pack)(Dtype in, const void* src, int64_t ld, bool k_major, int n, int64_t K, uint32_t* out,
                 int width);
    /// tile (rows x NR) to C[row0..][col0..col0 + cols); swiglu: cols counts the outputs, at most NR / 2.
    void (*finish)(const float* tile, int rows, int cols, const GemmEpilogue& e, int64_t row0, int64_t col0);
};

const GemmVariant* gemm_avx512bf16();
const GemmVariant* gemm_avx512();
const GemmVariant* gemm_avx2();
const GemmVariant* gemm_portable();
const GemmVariant* current_gemm_variant();

void gemm_f64(const GemmArgs& args);
void gemm_onednn(const GemmArgs& args, const GemmEpilogue& e);
void gemm_blocked(const GemmArgs& args, const GemmEpilogue& e);

} // namespace nvl
