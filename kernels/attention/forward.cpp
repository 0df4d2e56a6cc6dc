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

/// Running state of query rows: y (rows, Dv) not yet divided by l; a panel's maxima and sums in one vector.
struct State {
    float *y, *m, *l;
    int64_t ld;
    void clear(int64_t rows, int64_t panels) {
        std::memset(y, 0, size_t(rows * ld) * sizeof(float));
        std::fill(m, m + panels * PANEL, -INFINITY);
        std::memset(l, 0, size_t(panels * PANEL) * sizeof(float));
    }
};

template <class X> struct Task {
    const Sequence<X>& s;
    int64_t begin, rows, panels, DP, DvP;
    Scores scores;
    float *q, *kt, *v, *p;
    State total, part;

    Task(const Sequence<X>& s_, int64_t begin_, int64_t end)
        : s(s_), begin(begin_), rows(end - begin_), panels((rows + ROWS - 1) / ROWS), DP(padded(s.D)),
          DvP(padded(s.Dv)), scores(s.scale, s.softcap) {
        int64_t state = rows * DvP + 2 * panels * PANEL + 48;
        Workspace w(size_t(rows * DP + DP * BLOCK + BLOCK * DvP + ROWS * BLOCK + 2 * state + 64));
        q = w.take(rows * DP), kt = w.take(DP * BLOCK), v = w.take(BLOCK * DvP), p = w.take(ROWS * BLOCK);
        for (State* t : {&total, &part})
            *t = {w.take(rows * DvP), w.take(panels * PANEL), w.take(panels * PANEL), DvP};
        for (int64_t r = 0; r < rows; r++)
            pack_row(q + r * DP, s.q.at(s.row_in_q(begin + r), s.head(begin + r)), s.D, scores.unit);
    }

    void panel(int64_t first, int64_t n, int64_t index, int64_t block, const float* values, int64_t ldv,
               State& to) {
        Range range[LANES], all_rows{BLOCK, 0};
        for (int64_t i = 0; i < n; i++) {
            int64_t r = begin + first + i;
            range[i] = Range::of(s.first_key(r), s.last_key(r), block);
            all_rows.include(range[i]);
        }
        if (all_rows.empty()) return;
        int64_t c0 = all_rows.from / LANES * LANES, c1 = padded(all_rows.to);
        product({n, c1 - c0, s.D, q + first * DP, DP, 1, kt + c0, BLOCK, p + c0, BLOCK});
        float alpha[LANES];
        scores.softmax(p, n, range, c0, c1, to.m + index * PANEL, to.l + index * PANEL, alpha);
        product({n, DvP, all_rows.to - all_rows.from, p + all_rows.from, BLOCK, 1,
                 values + all_rows.from * ldv, ldv, to.y + first * DvP, DvP, Start::scale, alpha});
    }

    void segment(int64_t from_block, int64_t to_block, State& to) {
        to.clear(rows, panels);
        for (int64_t b = from_block; b < to_block; b++) {
            int64_t row = s.key_rows(b), n = std::min(BLOCK, s.keys - b * BLOCK);
            pack_transposed(kt, BLOCK, s.k.at(row, s.g), s.k.row_step, n, s.D);
            pack_rows(v, DvP, s.v.at(row, s.g), s.v.row_step, n, n, s.Dv);
            for (int64_t i = 0, index = 0; index < panels; index++) {
                int64_t end = rows * (index + 1) / panels;
                panel(i, end - i, index, b, v, DvP, to);
                i = end;
            }
        }
    }

    void merge() { // total with part, per row
        for (int64_t index = 0, i = 0; index < panels; index++) {
            float *m = total.m + index * PANEL, *l = total.l + index * PANEL, a[LANES], b[LANES];
            f32x16 mt = load(m), mp = load(part.m + index * PANEL), mn = max(mt, mp);
            f32x16 ms = mn > all(-INFINITY) ? mn : f32x16{};
            f32x16 at = exp2(mt - ms), ap = exp2(mp - ms);
            store(a, at), store(b, ap), store(m, mn);
            store(l, fma(load(l), at, load(part.l + index * PANEL) * ap));
            for (int64_t n = 0; i < rows * (index + 1) / panels; i++, n++)
                for (int64_t c = 0; c < DvP; c += LANES) {
                    float* y = total.y + i * DvP + c;
                    store(y, fma(load(y), all(a[n]), load(part.y + i * DvP + c) * all(b[n])));
                }
        }
    }

    void run() {
        constexpr int64_t BLOCKS = SEGMENT / BLOCK;
        int64_t from = s.first_key(begin) / BLOCK, to = (s.last_key(begin + rows - 1) + BLOCK - 1) / BLOCK;
        for (int64_t n = from / BLOCKS, first = n; n * BLOCKS < to; n++) {
            segment(std::max(from, n * BLOCKS), std::min(to, (n + 1) * BLOCKS), n == first ? total : part);
            if (n != first) merge();
        }
    }

    void store_rows(Heads<X> y, Heads<float> lse) {
        for (int64_t index = 0, i = 0; index < panels; index++)
            for (int64_t n = index * PANEL; i < rows * (index + 1) / panels; i++, n++) {
                int64_t row = s.row_in_q(begin + i), head = s.head(begin + i);
                // + 0 below (in finish): an all-zero sum has no sign then, whatever was masked
                finish(y.at(row, head), total.y + i * DvP, s.Dv, 1 / total.l[n]);
                if (lse.data) *lse.at(row, head) = scores.natural(total.m[n]) + std::log(total.l[n]);
            }
    }
    static void finish(X* to, float* from, int64_t cols, float scale) {
        for (int64_t c = 0; c < cols; c += LANES) store(from + c, load(from + c) + f32x16{});
        unpack_row(to, from, cols, scale, false);
    }
};

template <class X> void run(const Sequence<X>& s, int64_t begin, int64_t end, Heads<X> y, Heads<float> lse) {
    Task<X> task(s, begin, end);
    task.run();
    task.store_rows(y, lse);
}

} // namespace

void forward(const Sequence<float>& s, int64_t begin, int64_t end, Heads<float> y, Heads<float> lse) {
    run(s, begin, end, y, lse);
}
void forward(const Sequence<bf16>& s, int64_t begin, int64_t end, Heads<bf16> y, Heads<float> lse) {
    run(s, begin, end, y, lse);
}

} // namespace nvl::attend
