// Forward of attention: a block of threads takes M query rows of one sequence and walks over the keys that
// they see, N at a time, with an online softmax. While one tile of K and V is computed on, the next is on its
// way.
//
// Packed: rows are queries of one head. Paged: rows are queries of all heads of a group, heads innermost, so
// that decoding reads keys once for the group; keys are cut into segments at fixed places (segment_begin),
// each summed on its own and then merged in order. A sequence of few rows has its segments computed by
// different blocks, which leave their state in `partial` for combine(); others merge as they go, in shared
// memory. Both do the same arithmetic in the same order: the bits of a row depend neither on the split nor on
// the queries beside it.
#pragma once
#include "kernels/attention/flash.cuh"

namespace nvl::flash {

/// Keys of segments: short ones, since decoding needs many blocks, until 2048, then longer ones.
__host__ __device__ __forceinline__ constexpr int segment_begin(int n) {
    return n < 8 ? 256 * n : 1024 * (n - 6);
}
__host__ __device__ __forceinline__ constexpr int segment_of(int key) {
    return key < 2048 ? key / 256 : key / 1024 + 6;
}
static_assert(segment_begin(8) == 2048 && segment_of(2048) == 8 && segment_of(3071) == 8);

/// Unfinished rows: sums (DV), and (m, l), of each (key/value head, packed row, segment).
struct Unfinished {
    float *sums = nullptr, *state = nullptr;
    int rows = 0, segments = 0, ld = 0; // ld: columns of sums
    int split_rows = 0;                 // sequences of at most this many packed rows are split
    bool dense = false;                 // packed rows are numbered as they lie, else split_rows a sequence
    __device__ __forceinline__ int64_t at(int g, int row, int segment) const {
        return (int64_t(g) * rows + row) * segments + segment;
    }
};

template <class X> struct Forward {
    Problem p;
    Heads<const X> q, k, v;
    Heads<X> y;
    Heads<float> lse;
    const X* sinks;
    const int32_t *pages, *lengths; // paged only
    int64_t page_step;
    Unfinished partial;
};

/// A sequence as a block of threads sees it. Packed row r is query r / pack of head head0 + r % pack.
struct Sequence {
    int row, rows, first, keys; // first row in q, packed rows, token that query 0 is, keys
    int number, pack, head0, g;
    const int32_t* pages;
    __device__ __forceinline__ int token(int r) const { return first + r / pack; }
    __device__ __forceinline__ int first_key(const Mask& m, int r) const { return m.first(token(r)); }
    __device__ __forceinline__ int last_key(const Mask& m, int r) const { return m.last(token(r), keys); }
};

template <bool PAGED, class X>
__device__ __forceinline__ Sequence sequence_of(const Forward<X>& a, int n, int head) {
    Sequence s;
    int queries = a.p.starts[n + 1] - a.p.starts[n];
    s.number = n, s.row = a.p.starts[n], s.pages = nullptr;
    if constexpr (PAGED) {
        s.pack = a.p.group, s.g = head, s.head0 = head * a.p.group, s.keys = a.lengths[n];
        s.rows = queries * s.pack, s.first = s.keys - queries, s.pages = a.pages + n * a.page_step;
    } else
        s.pack = 1, s.g = head / a.p.group, s.head0 = head, s.rows = s.keys = queries, s.first = 0;
    return s;
}

/// Segments [from, to) of the keys that rows [begin, end) of a sequence see.
struct Segments {
    int from, to;
    __device__ __forceinline__ Segments(const Mask& m, const Sequence& s, int begin, int end)
        : from(segment_of(s.first_key(m, begin))), to(segment_of(s.last_key(m, end - 1) - 1) + 1) {}
};

template <class Tile, int DQK, int DV, int STAGES, bool PAGED> struct ForwardBlock {
    using X = typename Tile::X;
    using Query = typename Tile::template Shared<Tile::M, DQK>;
    using Key = typename Tile::template Shared<Tile::STEP, DQK>;
    using Value = typename Tile::template Shared<Tile::STEP, DV>;
    using Sums = typename Tile::template Sums<DV>;
    static constexpr int M = Tile::M, N = Tile::N, STEP = Tile::STEP, R = Tile::R;
    static constexpr int STAGE = Key::BYTES + Value::BYTES;
    static constexpr int TILES = Query::BYTES + STAGES * STAGE + Tile::SCRATCH * 4;
    static constexpr int OUT = Tile::THREADS / 32 * Tile::WARP_ROWS * (DV + 8) * 4; // y on its way out
    static constexpr int TOTAL = PAGED ? M * DV * 4 : 0; // sums of the segments before, by thread
    static constexpr int SHARED = (TILES > OUT ? TILES : OUT) + TOTAL;

    const Forward<X>& a;
    const Sequence& s;
    int begin; // first row of this block
    unsigned char* memory;
    Query sQ;
    int warp_first, warp_last, warp_full_first,
        warp_full_last; // keys that any, that each row of the warp sees

    __device__ __forceinline__ Key sK(int slot) const {
        return {shared_address(memory) + Query::BYTES + slot * STAGE};
    }
    __device__ __forceinline__ Value sV(int slot) const { return {sK(slot).base + Key::BYTES}; }
    __device__ __forceinline__ float* scratch() const {
        return reinterpret_cast<float*>(memory + Query::BYTES + STAGES * STAGE);
    }
    __device__ __forceinline__ float* total() const {
        return reinterpret_cast<float*>(memory + SHARED - TOTAL);
    }

    __device__ __forceinline__ ForwardBlock(const Forward<X>& a_, const Sequence& s_, int begin_,
                                            unsigned char* memory_)
        : a(a_), s(s_), begin(begin_), memory(memory_), sQ{shared_address(memory_)} {
        const Mask& m = a.p.mask;
        int low = begin + Tile::warp_row(), high = min(s.rows, low + Tile::WARP_ROWS) - 1;
        bool any = low <= high;
        warp_first = any ? s.first_key(m, low) : 0, warp_last = any ? s.last_key(m, high) : 0;
        warp_full_first = any ? s.first_key(m, high) : 0, warp_full_last = any ? s.last_key(m, low) : 0;
        load_tile<Tile, 1>(
            sQ, [&](int r) { return a.q.at(s.row + (begin + r) / s.pack, s.head0 + (begin + r) % s.pack); },
            s.rows - begin, a.p.D, a.p.vector_in);
    }

    __device__ __forceinline__ void load(int block, int slot) const {
        int key = block * STEP;
        int64_t row = PAGED ? int64_t(s.pages[key / 64]) * 64 + key % 64 : int64_t(s.row) + key;
        int valid = s.keys - key;
        EvenRows<X> keys{a.k.at(row, s.g), a.k.row_step}, values{a.v.at(row, s.g), a.v.row_step};
        load_tile<Tile, 4>(sK(slot), keys, valid, a.p.D, a.p.vector_in);
        load_tile<Tile, 4>(sV(slot), values, valid, a.p.Dv, a.p.vector_in);
        copy_commit();
    }

    __device__ __forceinline__ void compute(int key, int part, int slot, Sums& o,
                                            Running<Tile>& state) const {
        if (key >= warp_last || key + N <= warp_first) return;
        typename Tile::Scores p;
        Tile::scores(p, sQ, sK(slot), part);
        cap<Tile>(p, a.p.scoring);
        if (key < warp_full_first || key + N > warp_full_last) // rows beyond the last one are not stored
            hide<Tile>(
                p, [&](int i) { return s.first_key(a.p.mask, begin + Tile::row(i)) - key; },
                [&](int i) { return min(s.keys, s.last_key(a.p.mask, begin + Tile::row(i))) - key; },
                -INFINITY);
        softmax<Tile>(p, o, state, a.p.scoring.factor);
        Tile::template accumulate<DV>(o, p, sV(slot), part, 0, scratch());
    }

    /// The state so far joins that of earlier segments, and starts afresh.
    __device__ __forceinline__ void end_segment(Sums& o, Running<Tile>& state, Running<Tile>& before,
                                                bool is_first) const {
        float* to = total() + threadIdx.x;
        state.reduce();
#pragma unroll
        for (int i = 0; i < R; i++) {
            Merge merge(is_first ? -INFINITY : before.m[i], state.m[i]);
            before.l[i] = is_first ? state.l[i] : merge(before.l[i], state.l[i]), before.m[i] = merge.m;
#pragma unroll
            for (int j = 0; j < Sums::COLUMNS; j++) {
                float& x = to[(i * Sums::COLUMNS + j) * Tile::THREADS];
                x = is_first ? o.at(i, j) : merge(x, o.at(i, j));
            }
        }
        o.clear(), state.clear();
    }

    /// Tiles [from, to) of STEP keys, one after another.
    __device__ __forceinline__ void walk(int from, int to, Sums& o, Running<Tile>& state,
                                         Running<Tile>& before, bool& merged) const {
        o.clear(), state.clear();
        load(from, 0);
        for (int b = from; b < to; b++) {
            int slot = STAGES == 2 ? (b - from) & 1 : 0;
            copy_wait<0>();
            __syncthreads();
            if (STAGES == 2 && b + 1 < to) load(b + 1, slot ^ 1);
            if constexpr (PAGED)
                if (b > from && segment_begin(segment_of(b * STEP)) == b * STEP)
                    end_segment(o, state, before, !merged), merged = true;
#pragma unroll 1
            for (int part = 0; part < STEP; part += N) compute(b * STEP + part, part, slot, o, state);
            if (STAGES == 1) {
                __syncthreads();
                if (b + 1 < to) load(b + 1, 0);
            }
        }
        __syncthreads(); // the tiles may be used for something else
    }

    __device__ __forceinline__ void finish(Sums& o, Running<Tile>& state, const Running<Tile>& before,
                                           bool merged) const {
        state.reduce();
        float scale[R];
#pragma unroll
        for (int i = 0; i < R; i++) {
            if (PAGED && merged) {
                Merge merge(before.m[i], state.m[i]);
                state.m[i] = merge.m, state.l[i] = merge(before.l[i], state.l[i]);
#pragma unroll
                for (int j = 0; j < Sums::COLUMNS; j++)
                    o.at(i, j) =
                        merge(total()[threadIdx.x + (i * Sums::COLUMNS + j) * Tile::THREADS], o.at(i, j));
            }
            int r = begin + Tile::row(i);
            bool exists = r < s.rows;
            int head = s.head0 + r % s.pack;
            Finish end(state.m[i], state.l[i], a.sinks, a.sinks && exists ? to_float(a.sinks[head]) : 0.f);
            scale[i] = end.scale;
            if (a.lse.data && exists && Tile::column(0) == 0) *a.lse.at(s.row + r / s.pack, head) = end.lse;
        }
        auto row = [&](int r) -> X* {
            r += begin;
            return r < s.rows ? a.y.at(s.row + r / s.pack, s.head0 + r % s.pack) : nullptr;
        };
        float* out = reinterpret_cast<float*>(memory) + Tile::warp_row() * (DV + 8);
        store_rows<Tile, DV, X>(out, o, scale, row, a.p.Dv, false, a.p.vector_out);
    }

    /// One segment of a split sequence.
    __device__ __forceinline__ void leave(int segment, const Sums& o, Running<Tile>& state) const {
        state.reduce();
        int base = a.partial.dense ? s.row * s.pack : s.number * a.partial.split_rows;
#pragma unroll
        for (int i = 0; i < R; i++) {
            int r = begin + Tile::row(i);
            if (r >= s.rows) continue;
            int64_t at = a.partial.at(s.g, base + r, segment);
            if (Tile::column(0) == 0) store(a.partial.state + 2 * at, Floats<2>{{state.m[i], state.l[i]}});
#pragma unroll
            for (int j = 0; j < Sums::COLUMNS; j += Tile::SIDE) {
                Floats<Tile::SIDE> f;
#pragma unroll
                for (int e = 0; e < Tile::SIDE; e++) f[e] = o.at(i, j + e);
                store(a.partial.sums + at * DV + Tile::template sum_column<DV>(j), f);
            }
        }
    }
};

template <class Tile, int DQK, int DV, int STAGES, bool PAGED>
__global__ void __launch_bounds__(Tile::THREADS, Tile::THREADS == 256 ? 1 : 2)
    flash_forward(const __grid_constant__ Forward<typename Tile::X> a) {
    using Block = ForwardBlock<Tile, DQK, DV, STAGES, PAGED>;
    extern __shared__ __align__(128) unsigned char memory[];
    int heads = PAGED ? a.p.G : a.p.H, pack = PAGED ? a.p.group : 1;
    int index = int((gridDim.x - 1 - blockIdx.x) / unsigned(heads)), head = int(blockIdx.x % unsigned(heads));
    Found found = find_tile(index, a.p.sequences, [&](int n) {
        return ((a.p.starts[n + 1] - a.p.starts[n]) * pack + Block::M - 1) / Block::M;
    });
    if (found.sequence < 0) return;
    Sequence s = sequence_of<PAGED>(a, found.sequence, head);
    int begin = found.tile * Block::M, end = min(s.rows, begin + Block::M);
    int from = s.first_key(a.p.mask, begin), to = s.last_key(a.p.mask, end - 1);
    typename Block::Sums o;
    Running<Tile> state, before;
    bool merged = false;
    if constexpr (PAGED) {
        Segments segments(a.p.mask, s, begin, end);
        if (s.rows <= a.partial.split_rows && segments.to - segments.from > 1) {
            if (segments.from + int(blockIdx.y) >= segments.to) return;
            Block block(a, s, begin, memory);
            for (int n = segments.from + int(blockIdx.y); n < segments.to; n += int(gridDim.y)) {
                int first = max(from, segment_begin(n)), last = min(to, segment_begin(n + 1));
                block.walk(first / Block::STEP, (last + Block::STEP - 1) / Block::STEP, o, state, before,
                           merged);
                block.leave(n - segments.from, o, state);
            }
            return;
        }
        if (blockIdx.y) return;
    }
    Block block(a, s, begin, memory);
    block.walk(from / Block::STEP, (to + Block::STEP - 1) / Block::STEP, o, state, before, merged);
    block.finish(o, state, before, merged);
}

} // namespace nvl::flash
