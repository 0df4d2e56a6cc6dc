// Forward in f32 arithmetic, f32 or bf16 storage. Up to ROWS query rows meet 64 keys at a time:
//
//   S (rows, 64) = Q (rows, D) K^T        keys in lanes, so one row costs what it costs in a full tile
//   m, p, l                               softmax along the lanes
//   Y (rows, Dv) = alpha Y + P V
//
// K^T and V of a block are packed to f32 once and used by all rows of the task.
#include "kernels/attention/core.h"
#include "kernels/attention/softmax.h"
#include "kernels/attention/tile.h"

namespace nvl::attend {

using namespace simd;
using namespace tile;

namespace {

constexpr int64_t PANEL = LANES; // room for ROWS rows in one vector of maxima

constexpr int64_t BLOCKS = SEGMENT / BLOCK;
constexpr int64_t TASK_ROWS = 256; // enough to share the packing of a block of keys, few enough for L2

/// Rows [begin, end) of a sequence, for `heads` adjoining key/value heads of it.
template <class X> struct Piece {
    const Sequence<X>* first;
    int64_t heads, begin, end;
    int64_t rows() const { return end - begin; }
    int64_t from_block() const { return first->first_key(begin) / BLOCK; }
    int64_t to_block() const { return (first->last_key(end - 1) + BLOCK - 1) / BLOCK; }
    int64_t from_segment() const { return from_block() / BLOCKS; }
    int64_t segments() const { return (to_block() + BLOCKS - 1) / BLOCKS - from_segment(); }
    double flops() const {
        return 2.0 * double((first->D + first->Dv) * heads * rows() * (to_block() - from_block()) * BLOCK);
    }
};

/// Running state of query rows: y (rows, Dv) not yet divided by l; a panel's maxima and sums in one vector.
struct State {
    int64_t rows, panels, ld;
    float *y, *m, *l;
    static int64_t panels_of(int64_t rows) { return (rows + ROWS - 1) / ROWS; }
    static int64_t floats(int64_t rows, int64_t ld) { return rows * ld + 2 * panels_of(rows) * PANEL; }
    State(int64_t rows_, int64_t ld_, float* at)
        : rows(rows_), panels(panels_of(rows)), ld(ld_), y(at), m(y + rows * ld), l(m + panels * PANEL) {}
    void clear() {
        std::memset(y, 0, size_t(rows * ld) * sizeof(float));
        std::fill(m, m + panels * PANEL, -INFINITY);
        std::memset(l, 0, size_t(panels * PANEL) * sizeof(float));
    }
    int64_t panel(int64_t index) const { return rows * index / panels; } // its first row

    void merge(const State& o) {
        for (int64_t index = 0; index < panels; index++) {
            float *mi = m + index * PANEL, *li = l + index * PANEL, a[LANES], b[LANES];
            f32x16 mt = load(mi), mo = load(o.m + index * PANEL), mn = max(mt, mo);
            f32x16 base = mn > all(-INFINITY) ? mn : f32x16{};
            f32x16 at = exp2(mt - base), ao = exp2(mo - base);
            store(a, at), store(b, ao), store(mi, mn);
            store(li, fma(load(li), at, load(o.l + index * PANEL) * ao));
            for (int64_t i = panel(index), n = 0; i < panel(index + 1); i++, n++)
                for (int64_t c = 0; c < ld; c += LANES) {
                    float* to = y + i * ld + c;
                    store(to, fma(load(to), all(a[n]), load(o.y + i * ld + c) * all(b[n])));
                }
        }
    }
};

/// A block of keys and values as f32, and the probabilities of a panel.
struct Tiles {
    float *kt, *v, *p;
};

/// The rows of a piece for one key/value head.
template <class X> struct Head {
    const Sequence<X>& s;
    int64_t begin, rows, DP, DvP, to_block;
    Scores scores;
    Visible visible;
    float* q;
    Tiles tiles;

    Head(const Piece<X>& piece, int64_t head, Workspace& w, const Tiles& t)
        : s(piece.first[head]), begin(piece.begin), rows(piece.rows()), DP(padded(s.D)), DvP(padded(s.Dv)),
          to_block(piece.to_block()), scores(s.scale, s.softcap), tiles(t) {
        prefetch(piece.from_block(), 0, 1);
        q = w.take(rows * DP);
        visible = {w.take_integers(rows), w.take_integers(rows)};
        visible.fill(s, begin, rows);
        for (int64_t r = 0; r < rows; r++)
            pack_row(q + r * DP, s.q.at(s.row_in_q(begin + r), s.head(begin + r)), s.D, scores.unit);
    }
    static int64_t floats(const Piece<X>& p) { return p.rows() * (padded(p.first->D) + 2) + 48; }

    /// Part `part` of `parts` of a block's keys and values.
    void prefetch(int64_t block, int64_t part, int64_t parts) const {
        if (block >= to_block) return;
        int64_t row = s.key_rows(block), n = std::min(BLOCK, s.keys - block * BLOCK);
        int64_t from = n * part / parts, to = n * (part + 1) / parts;
        prefetch_rows(s.k.at(row, s.g), s.k.row_step, from, to, s.D);
        prefetch_rows(s.v.at(row, s.g), s.v.row_step, from, to, s.Dv);
    }
    /// With few rows memory decides: the block of all heads is read once in the order of memory, which the
    /// hardware's own prefetching needs (31 GB/s; head by head 10, and bursts of prefetches are dropped).
    void fetch(int64_t block, int64_t heads) const {
        int64_t row = s.key_rows(block), n = std::min(BLOCK, s.keys - block * BLOCK);
        touch_rows(s.k.at(row, s.g), s.k.row_step, n, s.k.head_step * (heads - 1) + s.D);
        touch_rows(s.v.at(row, s.g), s.v.row_step, n, s.v.head_step * (heads - 1) + s.Dv);
    }

    void panel(int64_t first, int64_t n, int64_t index, int64_t block, const float* values, int64_t ldv,
               State& to) {
        Range range[LANES], all_rows;
        for (int64_t i = 0; i < n; i++) all_rows.include(range[i] = visible.in_block(first + i, block));
        if (all_rows.empty()) return;
        int64_t c0 = all_rows.from / LANES * LANES, c1 = padded(all_rows.to);
        float* p = tiles.p;
        product({n, c1 - c0, s.D, q + first * DP, DP, 1, tiles.kt + c0, BLOCK, p + c0, BLOCK});
        float alpha[LANES];
        scores.softmax(p, n, range, c0, c1, to.m + index * PANEL, to.l + index * PANEL, alpha);
        product({n, DvP, all_rows.to - all_rows.from, p + all_rows.from, BLOCK, 1,
                 values + all_rows.from * ldv, ldv, to.y + first * DvP, DvP, Start::scale, alpha});
    }

    void block(int64_t b, State& state) {
        int64_t row = s.key_rows(b), n = std::min(BLOCK, s.keys - b * BLOCK), ldv = DvP;
        const X* value = s.v.at(row, s.g);
        pack_transposed(tiles.kt, BLOCK, s.k.at(row, s.g), s.k.row_step, n, s.D);
        const float* values = tiles.v;
        if (std::is_same_v<X, float> && state.panels == 1 && s.Dv == DvP) // read once: as it lies
            values = reinterpret_cast<const float*>(value), ldv = s.v.row_step;
        else
            pack_rows(tiles.v, DvP, value, s.v.row_step, n, n, s.Dv);
        for (int64_t index = 0; index < state.panels; index++) {
            if (state.panels > 1) prefetch(b + 1, index, state.panels);
            int64_t first = state.panel(index);
            panel(first, state.panel(index + 1) - first, index, b, values, ldv, state);
        }
    }

    void finish(const State& t, Heads<X> y, Heads<float> lse) const {
        for (int64_t index = 0; index < t.panels; index++)
            for (int64_t i = t.panel(index), n = index * PANEL; i < t.panel(index + 1); i++, n++) {
                int64_t row = s.row_in_q(begin + i), head = s.head(begin + i);
                float* from = t.y + i * DvP; // + 0: a sum that is zero has no sign, whatever was masked
                for (int64_t c = 0; c < DvP; c += LANES) store(from + c, load(from + c) + f32x16{});
                float m = t.m[n], l = t.l[n], a = 1;
                if (s.sinks) { // one more term of the sum, of which y has no part
                    float z = scores.binary(float(s.sinks[head])), top = std::max(m, z);
                    a = std::exp2(m - top), l = std::fma(l, a, std::exp2(z - top)), m = top;
                }
                unpack_row(y.at(row, head), from, s.Dv, a / l, false);
                if (lse.data) *lse.at(row, head) = scores.natural(m) + std::log(l);
            }
    }
};

/// All heads of a piece, block by block: the heads of a key row lie side by side in memory.
template <class X> struct Work {
    const Piece<X>& piece;
    std::vector<Head<X>> heads;
    Workspace work;

    explicit Work(const Piece<X>& p) : piece(p), work(size_t(floats(p))) {
        const Sequence<X>& s = *p.first;
        Tiles t{work.take(padded(s.D) * BLOCK), work.take(BLOCK * padded(s.Dv)), work.take(ROWS * BLOCK)};
        heads.reserve(size_t(p.heads));
        for (int64_t h = 0; h < p.heads; h++) heads.emplace_back(p, h, work, t);
    }
    static int64_t state_floats(const Piece<X>& p) { return State::floats(p.rows(), padded(p.first->Dv)); }
    static int64_t floats(const Piece<X>& p) {
        return BLOCK * (padded(p.first->D) + padded(p.first->Dv) + ROWS) + 64 +
               p.heads * (Head<X>::floats(p) + 2 * state_floats(p));
    }
    std::vector<State> states(float* at) const {
        std::vector<State> list;
        for (int64_t h = 0; h < piece.heads; h++, at += state_floats(piece))
            list.emplace_back(piece.rows(), padded(piece.first->Dv), at);
        return list;
    }
    void segment(int64_t n, std::vector<State>& to) {
        n += piece.from_segment();
        for (State& state : to) state.clear();
        int64_t from = std::max(piece.from_block(), n * BLOCKS),
                end = std::min(piece.to_block(), (n + 1) * BLOCKS);
        for (int64_t b = from; b < end; b++) {
            if (to[0].panels == 1) heads[0].fetch(b, piece.heads);
            for (size_t h = 0; h < heads.size(); h++) heads[h].block(b, to[h]);
        }
    }
    static void merge(std::vector<State>& to, const std::vector<State>& from) {
        for (size_t h = 0; h < to.size(); h++) to[h].merge(from[h]);
    }
    void finish(const std::vector<State>& total, Heads<X> y, Heads<float> lse) const {
        for (size_t h = 0; h < heads.size(); h++) heads[h].finish(total[h], y, lse);
    }
};

template <class X> void run_piece(const Piece<X>& p, Heads<X> y, Heads<float> lse) {
    Work<X> work(p);
    int64_t floats = p.heads * work.state_floats(p);
    auto total = work.states(work.work.take(floats)), part = work.states(work.work.take(floats));
    for (int64_t n = 0; n < p.segments(); n++) {
        work.segment(n, n ? part : total);
        if (n) work.merge(total, part);
    }
    work.finish(total, y, lse);
}

/// Too few pieces for the threads: each segment of a piece is a task, then they are merged in the same order.
template <class X> void run_segments(const std::vector<Piece<X>>& pieces, Heads<X> y, Heads<float> lse) {
    struct Part {
        const Piece<X>* piece;
        int64_t segment, offset;
    };
    std::vector<Part> parts;
    int64_t floats = 0;
    for (const Piece<X>& p : pieces)
        for (int64_t n = 0; n < p.segments(); n++, floats += p.heads * Work<X>::state_floats(p))
            parts.push_back({&p, n, floats});
    float* memory = reinterpret_cast<float*>(scratch(size_t(floats) * sizeof(float), 6));
    run_tasks(int64_t(parts.size()), true, [&](int64_t i) {
        Work<X> work(*parts[size_t(i)].piece);
        auto state = work.states(memory + parts[size_t(i)].offset);
        work.segment(parts[size_t(i)].segment, state);
    });
    size_t next = 0;
    for (const Piece<X>& p : pieces) {
        Work<X> work(p);
        auto total = work.states(memory + parts[next++].offset);
        for (int64_t n = 1; n < p.segments(); n++)
            work.merge(total, work.states(memory + parts[next++].offset));
        work.finish(total, y, lse);
    }
}

/// Few rows per head (decode): all heads of a sequence together, which reads the cache row by row. Else one
/// head and up to TASK_ROWS rows.
template <class X> std::vector<Piece<X>> pieces_of(const std::vector<Sequence<X>>& list) {
    std::vector<Piece<X>> pieces;
    for (size_t i = 0; i < list.size();) {
        const Sequence<X>& s = list[i];
        size_t n = i + 1;
        while (s.rows() <= ROWS && n < list.size() && list[n].row == s.row && list[n].g > s.g) n++;
        for (int64_t end = s.rows(); end > 0; end -= TASK_ROWS)
            pieces.push_back({&s, int64_t(n - i), std::max<int64_t>(0, end - TASK_ROWS), end});
        i = n;
    }
    return pieces;
}

template <class X> void halve_heads(std::vector<Piece<X>>& pieces) {
    for (size_t i = 0, n = pieces.size(); i < n; i++)
        if (Piece<X> p = pieces[i]; p.heads > 1) {
            pieces[i].heads = p.heads / 2;
            pieces.push_back({p.first + p.heads / 2, p.heads - p.heads / 2, p.begin, p.end});
        }
}

} // namespace

template <class X> void forward(const std::vector<Sequence<X>>& list, Heads<X> y, Heads<sum_t<X>> lse) {
    std::vector<Piece<X>> pieces = pieces_of(list);
    double flops = 0;
    for (const Piece<X>& p : pieces) flops += p.flops();
    bool wake = worth_waking(flops) && threads() > 1;
    auto tasks = [&] {
        int64_t n = 0;
        for (const Piece<X>& p : pieces) n += p.segments();
        return n;
    };
    for (size_t before = 0; wake && tasks() < threads() && before != pieces.size();)
        before = pieces.size(), halve_heads(pieces);
    if (wake && int64_t(pieces.size()) < threads()) return run_segments(pieces, y, lse);
    std::stable_sort(pieces.begin(), pieces.end(),
                     [](const auto& a, const auto& b) { return a.flops() > b.flops(); });
    run_tasks(int64_t(pieces.size()), wake, [&](int64_t i) { run_piece(pieces[size_t(i)], y, lse); });
}
template void forward(const std::vector<Sequence<float>>& list, Heads<float> y, Heads<float> lse);
template void forward(const std::vector<Sequence<bf16>>& list, Heads<bf16> y, Heads<float> lse);

} // namespace nvl::attend
