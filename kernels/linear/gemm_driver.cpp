// The blocked driver: who packs what, in which order tiles are visited, on which thread. None of it can
// change a bit: an element's order of summation is carried by the micro-kernel and by tile_of_leaves alone.
//
//   A in chunks of 4 MiB, packed by all threads, or by each of few for itself (if A has more rows than B
//   columns: all of B by each of few for itself, and A by blocks)
//     thread: its columns (or rows, when there are few columns)
//       block of 6 panels of B, packed privately > block of 9 panels of A > group of K > panel j > panel i
// A group of K is an aligned subtree of leaves that fits the cache, or a piece of one longer leaf.
#include <algorithm>
#include <atomic>
#include <cstring>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "engine/base/memory.h"
#include "engine/base/parallel.h"
#include "kernels/linear/gemm_variant.h"

namespace nvl {

GemmOrder gemm_order(int64_t K) {
    GemmOrder order{K, 1};
    while (order.leaves < 8 && order.leaf % 4 == 0 && order.leaf / 2 >= 192)
        order.leaf /= 2, order.leaves *= 2;
    return order;
}

namespace {

constexpr int SLOT_TILES = 5, SLOT_B = 6, SLOT_A = 7; // scratch
constexpr int64_t CHUNK = 4 << 20;                    // bytes of packed A (or B) at a time
constexpr int64_t BLOCK_M = 9, BLOCK_N = 6;           // panels
constexpr int64_t GROUP_WORDS = 1024;                 // words of K for which panels of A stay in L2
constexpr int64_t PARALLEL_GRAIN = 1 << 17;           // multiply-adds worth waking a thread for
constexpr int PRIVATE = 4;  // most threads of which each packs for itself: a line that another core has read
                            // costs 40 ns to write, 14 % of a 256x768x768 product on 2 threads
constexpr int64_t PAD = 64; // words that packing and prefetching may run past

int64_t words_of(Dtype in, int64_t K) { return in == Dtype::bf16 ? (K + 1) / 2 : K; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Denormals to zero while in scope, on this thread.
struct FlushDenormals {
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    FlushDenormals() { _mm_setcsr(before | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before); }
#endif
};

/// K in groups: `groups` of `leaves` leaves each; a leaf longer than GROUP_WORDS comes in `pieces` instead.
struct Groups {
    int64_t leaf, step; // words of a leaf, of a piece
    int leaves = 1, groups, pieces = 1;
    Groups(Dtype in, GemmOrder order, int64_t limit) {
        leaf = step = words_of(in, order.leaf), groups = order.leaves;
        while (groups > 1 && leaf * leaves * 2 <= limit) leaves *= 2, groups /= 2;
        if (leaf > limit) pieces = int(ceil_div(leaf, limit)), step = ceil_div(leaf, pieces);
    }
};

/// [0, n) shared out in pieces: a thread first takes its own part (so it meets the memory that it wrote the
/// time before, on any machine where the cores are far apart), then what others have left.
class Shares {
public:
    struct Piece {
        int64_t begin, end;
        explicit operator bool() const { return begin < end; }
    };
    Shares(int64_t n, int64_t piece, int threads) : n_(n), piece_(piece), threads_(threads) {}
    Piece take(int64_t thread) {
        for (int i = 0; i < threads_; i++) {
            int64_t t = (thread + i) % threads_, end = n_ * (t + 1) / threads_;
            int64_t begin = n_ * t / threads_ + piece_ * taken_[t].fetch_add(1);
            if (begin < end) return {begin, std::min(end, begin + piece_)};
        }
        return {0, 0};
    }

private:
    int64_t n_, piece_;
    int threads_;
    std::atomic<int64_t> taken_[PRIVATE] = {};
};

/// What is packed next, and how many of its lines a tile asks for while it multiplies.
struct Ahead {
    GemmLines lines;
    int64_t per_tile;
    Ahead(GemmLines l, int64_t tiles) : lines(l), per_tile(ceil_div(l.left, tiles)) {}
};

} // namespace

struct GemmDriver {
    const GemmArgs& g;
    const GemmVariant& v;
    const GemmEpilogue& e;
    const int MR = v.MR, NR = v.NR, TILE = MR * NR;
    const bool few_rows = g.M <= 16; // decode: whole K at once, B streams through
    const int64_t words = words_of(g.in, g.K), panels_n = ceil_div(g.N, NR);
    const int64_t block_n = few_rows ? 4 : BLOCK_N;
    const Groups k{g.in, {g.K / g.leaves, g.leaves}, few_rows ? INT64_MAX / 16 : GROUP_WORDS};
    const bool swiglu = e.activation == Epilogue::swiglu;
    const bool direct = !e.accumulate && !e.residual && e.activation == Epilogue::none; // whole tiles go to C

    // The chunk of A in hand: rows [m0, m0 + rows) in panels of nearly equal height (no wasted rows).
    int64_t m0 = 0, panels_m = 0, height = 0, taller = 0, stride_a = 0;
    int64_t row_of(int64_t i) const { return m0 + i * height + std::min(i, taller); }
    int rows_of(int64_t i) const { return int(height + (i < taller)); }
    int cols_of(int64_t j) const { return int(std::min<int64_t>(NR, g.N - j * NR)); }

    static const uint32_t* packed_b(const PackedWeight& w) {
        return reinterpret_cast<const uint32_t*>(w.memory_.data());
    }
    static const GemmVariant& variant_of(const PackedWeight& w) { return *w.variant_; }

    void run() {
        int64_t per_chunk = std::clamp<int64_t>(CHUNK / (4 * std::max<int64_t>(1, words)), MR, 1 << 20);
        int64_t work = g.M * g.N * g.K;
        int threads = few_rows && work < PARALLEL_GRAIN * g.M
                          ? 1
                          : int(std::clamp<int64_t>(work / PARALLEL_GRAIN, 1, nvl::threads()));
        bool by_rows =
            !few_rows && !g.packed && threads <= PRIVATE && g.M > g.N && panels_n * words * NR * 4 <= CHUNK;
        if (by_rows) per_chunk = g.M;
        for (m0 = 0; m0 < g.M; m0 += per_chunk) {
            int64_t rows = std::min(per_chunk, g.M - m0);
            panels_m = ceil_div(rows, MR), height = rows / panels_m, taller = rows % panels_m;
            stride_a = words * v.width(MR);
            if (by_rows)
                private_b(threads);
            else if (few_rows || threads == 1 || threads > PRIVATE || rows > g.N)
                shared_a(threads);
            else
                private_a(threads);
        }
    }

    uint32_t* scratch_a(int64_t panels) const {
        return reinterpret_cast<uint32_t*>(scratch(size_t(panels * stride_a + PAD) * 4, SLOT_A));
    }
    /// Many threads, or one, or an A larger than B: A is packed once, by all of them.
    void shared_a(int threads) const {
        int across_n = int(std::clamp<int64_t>(panels_n / 2, 1, threads)), across_m = threads / across_n;
        int64_t grain_a = threads == 1 || few_rows ? panels_m : 1;
        uint32_t* a = scratch_a(panels_m);
        parallel_for(panels_m, grain_a, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; i++) pack_a(i, a + i * stride_a);
        });
        parallel_for(across_n * across_m, 1, [&](int64_t begin, int64_t end) {
            FlushDenormals flush;
            for (int64_t p = begin; p < end; p++) {
                int64_t n = p % across_n, m = p / across_n;
                region(a, panels_m * m / across_m, panels_m * (m + 1) / across_m, panels_n * n / across_n,
                       panels_n * (n + 1) / across_n);
            }
        });
    }

    /// Few threads: each packs all of A for itself, then takes columns until none are left.
    void private_a(int threads) const {
        Shares columns(panels_n, std::clamp<int64_t>(panels_n / (threads * 4), 2, block_n), threads);
        parallel_for(threads, 1, [&](int64_t thread, int64_t) {
            FlushDenormals flush;
            uint32_t* a = scratch_a(panels_m);
            for (int64_t i = 0; i < panels_m; i++) pack_a(i, a + i * stride_a);
            for (auto j = columns.take(thread), next = j; j; j = next) {
                next = columns.take(thread);
                block_of_columns(a, 0, panels_m, j.begin, j.end, source_of_b(next.begin, next.end));
            }
        });
    }

    /// More rows than columns: each thread packs all of B for itself, then takes rows until none are left.
    void private_b(int threads) const {
        int64_t most = std::clamp<int64_t>(panels_m / (threads * 4), 1, BLOCK_M);
        Shares rows(panels_m, most, threads);
        parallel_for(threads, 1, [&](int64_t thread, int64_t) {
            FlushDenormals flush;
            uint32_t* a = scratch_a(most);
            float* tiles = scratch_tiles();
            const uint32_t* b = pack_b(0, panels_n);
            for (auto i = rows.take(thread), next = i; i; i = next) {
                next = rows.take(thread);
                int64_t ni = i.end - i.begin;
                for (int64_t p = 0; p < ni; p++) pack_a(i.begin + p, a + p * stride_a);
                Ahead ahead(source_of_a(next.begin, next.end), ni * panels_n * calls_per_tile());
                for (int64_t j = 0; j < panels_n; j += block_n)
                    block(a, i.begin, ni, j, std::min(block_n, panels_n - j), b + j * words * NR, tiles,
                          ahead);
            }
        });
    }

    void pack_a(int64_t i, uint32_t* out) const {
        const char* a = static_cast<const char*>(g.A) + row_of(i) * (g.trans_a ? 1 : g.lda) * size_of(g.in);
        v.pack(g.in, a, g.lda, g.trans_a, rows_of(i), g.K, out, v.width(rows_of(i)));
    }

    /// Panels [i0, i1) x [j0, j1) of this chunk, on this thread.
    void region(const uint32_t* packed_a, int64_t i0, int64_t i1, int64_t j0, int64_t j1) const {
        for (int64_t j = j0, next; j < j1; j = next) {
            next = std::min(j1, j + block_n);
            block_of_columns(packed_a, i0, i1, j, next, source_of_b(next, std::min(j1, next + block_n)));
        }
    }
    /// The same for at most block_n panels of B; `next` is what this thread packs afterwards.
    void block_of_columns(const uint32_t* packed_a, int64_t i0, int64_t i1, int64_t j0, int64_t j1,
                          GemmLines next) const {
        if (i0 >= i1) return;
        float* tiles = scratch_tiles();
        const uint32_t* b = g.packed ? packed_b(*g.packed) + j0 * words * NR : pack_b(j0, j1 - j0);
        Ahead ahead(next, (i1 - i0) * (j1 - j0) * calls_per_tile());
        for (int64_t i = i0; i < i1; i += BLOCK_M)
            block(packed_a + i * stride_a, i, std::min(BLOCK_M, i1 - i), j0, j1 - j0, b, tiles, ahead);
    }
    int64_t calls_per_tile() const { return k.groups * k.pieces; }
    float* scratch_tiles() const {
        int upper = 0; // levels of the tree above a group, and one tile for a leaf in pieces
        while (1 << upper < k.groups) upper++;
        int64_t block_floats = (upper + 1) * BLOCK_M * block_n * TILE,
                local = (GEMM_MAX_LEVELS + 1) * 4 * TILE;
        return reinterpret_cast<float*>(scratch(size_t(block_floats + local) * 4, SLOT_TILES));
    }
    /// Where panels [j0, j1) of B, or [i0, i1) of A, lie before they are packed.
    GemmLines source_of_b(int64_t j0, int64_t j1) const {
        if (g.packed || few_rows || j0 >= j1) return {};
        return source(g.B, g.ldb, g.trans_b, j0 * NR, std::min(g.N, j1 * NR));
    }
    GemmLines source_of_a(int64_t i0, int64_t i1) const {
        if (i0 >= i1) return {};
        return source(g.A, g.lda, !g.trans_a, row_of(i0), row_of(i1));
    }
    GemmLines source(const void* data, int64_t ld, bool k_dense, int64_t from, int64_t to) const {
        int64_t size = size_of(g.in), n = to - from;
        auto* start = static_cast<const char*>(data) + from * (k_dense ? ld : 1) * size;
        return {start, k_dense ? n : g.K, ld * size, (k_dense ? g.K : n) * size};
    }
    const uint32_t* pack_b(int64_t j0, int64_t nj) const {
        auto* out = reinterpret_cast<uint32_t*>(
            scratch(size_t(std::max(nj, block_n) * words * NR + PAD) * 4, SLOT_B));
        for (int64_t j = 0; j < nj; j++) {
            const char* b =
                static_cast<const char*>(g.B) + (j0 + j) * NR * (g.trans_b ? g.ldb : 1) * size_of(g.in);
            v.pack(g.in, b, g.ldb, !g.trans_b, cols_of(j0 + j), g.K, out + j * words * NR, NR);
        }
        return out;
    }

    void block(const uint32_t* packed_a, int64_t i0, int64_t ni, int64_t j0, int64_t nj, const uint32_t* b,
               float* tiles, Ahead& ahead) const {
        for (int group = 0; group < k.groups; group++)
            for (int piece = 0; piece < k.pieces; piece++)
                for (int64_t j = 0, wide; j < nj; j += wide) {
                    wide = 1; // few rows: several panels at a time hide the latency of the multiply-adds
                    if (g.M <= v.rows_of_4 && nj - j >= 4)
                        wide = 4;
                    else if (g.M <= v.rows_of_2 && nj - j >= 2)
                        wide = 2;
                    for (int64_t i = 0; i < ni; i++)
                        tile_of_leaves(group, piece, packed_a + i * stride_a, i0 + i, j0 + j, int(wide),
                                       b + j * words * NR, tiles + (i * block_n + j) * TILE, tiles, ahead);
                }
    }

    /// One group (or piece of a leaf) for the tiles (i, j .. j + wide). tile: its place in each level's
    /// buffer.
    void tile_of_leaves(int group, int piece, const uint32_t* a, int64_t i, int64_t j, int wide,
                        const uint32_t* b, float* tile, float* tiles, Ahead& ahead) const {
        const int64_t level_stride = BLOCK_M * block_n * TILE;
        int upper = 0;
        while (1 << upper < k.groups) upper++;
        float *pieces = tile + upper * level_stride, *local = tiles + (upper + 1) * level_stride;
        float* done = local + GEMM_MAX_LEVELS * 4 * TILE;
        int64_t k0 = group * k.leaves * k.leaf + piece * k.step, c0 = j * NR;
        int rows = rows_of(i);
        GemmTile t{};
        t.a = a + k0 * v.width(rows), t.b = b + k0 * NR;
        t.words = std::min(k.step, k.leaf - piece * k.step), t.leaves = k.leaves;
        t.b_panel = words * NR, t.prefetch_b = (few_rows && wide == 1 ? 32 : 16) * NR;
        t.prefetch_far = (few_rows ? 256 : 64) * NR; // 8 rows, W in memory: 27 GB/s, without it 18 (read: 33)
        t.init = piece ? pieces : nullptr, t.local = local, t.merges = 0, t.tile_panel = TILE;
        bool leaf_ends = piece + 1 == k.pieces, last = leaf_ends && group + 1 == k.groups, to_c = false;
        if (!leaf_ends) {
            t.out = pieces;
        } else {
            int level = 0; // a binary counter over groups
            for (; group >> level & 1; level++) t.merge[t.merges++] = tile + level * level_stride;
            t.out = last ? done : tile + level * level_stride;
        }
        t.out_row = NR, t.out_panel = TILE;
        if (last) {
            to_c = direct && cols_of(j + wide - 1) == NR;
            if (to_c) {
                t.out = reinterpret_cast<float*>(static_cast<char*>(e.c) +
                                                 (row_of(i) * e.ldc + c0) * size_of(e.out));
                t.out_row = e.ldc, t.out_panel = NR, t.out_bf16 = e.out == Dtype::bf16;
                t.bias = e.bias ? e.bias + c0 : nullptr;
            }
            int64_t size = size_of(e.out), at = row_of(i) * e.ldc + (swiglu ? c0 / 2 : c0);
            t.written = {static_cast<const char*>(e.c) + at * size, rows, e.ldc * size, wide * NR * size};
        }
        t.read = &ahead.lines, t.reads = ahead.per_tile;
        v.kernel(g.in, rows, wide)(t);
        if (!last || to_c) return;
        for (int x = 0; x < wide; x++) {
            int cols = cols_of(j + x);
            if (swiglu) cols = int(std::min<int64_t>(NR / 2, g.N / 2 - (j + x) * (NR / 2)));
            v.finish(done + x * TILE, rows, cols, e, row_of(i), (j + x) * (swiglu ? NR / 2 : NR));
        }
    }
};

void gemm_blocked(const GemmArgs& args, const GemmEpilogue& e) {
    const GemmVariant& v = args.packed ? GemmDriver::variant_of(*args.packed) : *current_gemm_variant();
    GemmDriver{args, v, e}.run();
}

// Takes memory for panels of `columns` of the outputs each and lets pack(panel, out) fill them.
template <class Pack> void PackedWeight::fill(const char* expected, bool found, int64_t ld, int64_t outputs,
                                              int columns, Pack pack) {
    check(dtype_ == Dtype::f32 || dtype_ == Dtype::bf16, "packed weight: expected f32 or bf16, found %s",
          name_of(dtype_));
    check(found && outputs > 0 && K_ > 0, "packed weight: expected %s, found (%ld,%ld)", expected,
          long(outputs), long(K_));
    check(ld >= K_, "packed weight: leading dimension %ld is shorter than a row of %ld", long(ld), long(K_));
    const int NR = variant_->NR;
    int64_t panels = ceil_div(outputs, columns), words = words_of(dtype_, K_);
    memory_ = Memory(size_t(panels * words * NR + PAD) * 4);
    auto* out = reinterpret_cast<uint32_t*>(memory_.data());
    parallel_for(panels, ceil_div(PARALLEL_GRAIN, K_ * NR), [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; j++) pack(j, out + j * words * NR);
    });
}

PackedWeight::PackedWeight(const void* weight, int64_t ld, int64_t N, int64_t K, Dtype dtype)
    : N_(N), K_(K), dtype_(dtype), variant_(current_gemm_variant()) {
    const int NR = variant_->NR;
    if (!ld) ld = K;
    fill("a matrix", weight, ld, N, NR, [&](int64_t j, uint32_t* out) {
        variant_->pack(dtype, static_cast<const char*>(weight) + j * NR * ld * size_of(dtype), ld, false,
                       int(std::min<int64_t>(NR, N - j * NR)), K, out, NR);
    });
}

// Panels of NR / 2 columns of gate, then the same columns of up.
PackedWeight::PackedWeight(const void* gate, const void* up, int64_t ld, int64_t F, int64_t K, Dtype dtype)
    : N_(2 * F), K_(K), dtype_(dtype), swiglu_(true), variant_(current_gemm_variant()) {
    const int half = variant_->NR / 2;
    if (!ld) ld = K;
    fill("two matrices", gate && up, ld, F, half, [&](int64_t j, uint32_t* out) {
        for (const void* part : {gate, up})
            variant_->pack(dtype, static_cast<const char*>(part) + j * half * ld * size_of(dtype), ld, false,
                           int(std::min<int64_t>(half, F - j * half)), K, out + (part == up ? half : 0),
                           variant_->NR);
    });
}

} // namespace nvl
