// Backward in f32 arithmetic, f32 or bf16 storage: one task is one sequence and one key/value head with the
// query heads that read it. Block after block of 64 keys meets the query rows, 64 at a time:
//
//   S = Q K^T    P = 2^(S - lse)    dP = dY V^T    dS = P * (dP - delta)      by panels of ROWS rows
//   dQ += dS K                                                                 by the same panels
//   dV += P^T dY    dK += dS^T Q                                               by the whole tile
//
// Each element of dQ, dK, dV is one chain of fused multiply-adds, over keys or over query rows in order: a
// task owns them all, so neither threads nor tiles change a bit.
#include "kernels/attention/core.h"
#include "kernels/attention/softmax.h"
#include "kernels/attention/tile.h"
#include "kernels/cpu/sums.h"

namespace nvl::attend {

using namespace simd;
using namespace tile;

namespace {

constexpr int64_t TILE = 64; // query rows

template <class X> struct Task {
    const Sequence<X>& s;
    const Gradients<X>& g;
    int64_t rows, DP, DvP;
    Scores scores;
    Visible visible;
    Range seen[TILE];                 // of the rows of a tile
    float *q, *dy, *dq, *lse, *delta; // whole sequence
    float *kt, *vt, *k, *dk, *dv;     // a block of keys
    float *p, *ds;                    // (TILE, BLOCK)

    Task(const Sequence<X>& s_, const Gradients<X>& g_)
        : s(s_), g(g_), rows(s.rows()), DP(padded(s.D)), DvP(padded(s.Dv)), scores(s.scale, s.softcap) {
        Workspace w(size_t(rows * (2 * DP + DvP + 4) + BLOCK * (3 * DP + 2 * DvP) + 2 * TILE * BLOCK + 256));
        q = w.take(rows * DP), dy = w.take(rows * DvP), dq = w.take(rows * DP);
        lse = w.take(rows), delta = w.take(rows);
        kt = w.take(DP * BLOCK), vt = w.take(DvP * BLOCK), k = w.take(BLOCK * DP);
        dk = w.take(BLOCK * DP), dv = w.take(BLOCK * DvP);
        p = w.take(TILE * BLOCK), ds = w.take(TILE * BLOCK);
        prefetch(0, 0, 1);
        visible = {w.take_integers(rows), w.take_integers(rows)};
        visible.fill(s, 0, rows);
        for (int64_t r = 0; r < rows; r++) {
            int64_t i = s.row_in_q(r), h = s.head(r);
            const X *dy_row = g.dy.at(i, h), *y_row = g.y.at(i, h);
            pack_row(q + r * DP, s.q.at(i, h), s.D, scores.unit);
            pack_row(dy + r * DvP, dy_row, s.Dv, 1.f);
            lse[r] = Scores::binary(*g.lse.at(i, h));
            delta[r] = lane_sum<float>(s.Dv, [&](int64_t c) { return float(dy_row[c]) * float(y_row[c]); });
        }
        if (g.dq.data) std::memset(dq, 0, size_t(rows * DP) * sizeof(float));
    }

    /// Part `part` of `parts` of a block's keys and values.
    void prefetch(int64_t block, int64_t part, int64_t parts) const {
        int64_t row = s.key_rows(block), n = std::clamp<int64_t>(s.keys - block * BLOCK, 0, BLOCK);
        int64_t from = n * part / parts, to = n * (part + 1) / parts;
        prefetch_rows(s.k.at(row, s.g), s.k.row_step, from, to, s.D);
        prefetch_rows(s.v.at(row, s.g), s.v.row_step, from, to, s.Dv);
    }

    /// P and dS of a row: scores in `pr` and dy v^T in `dr` on entry, columns [c0, c1).
    void row(float* pr, float* dr, int64_t r, const Range& range, int64_t c0, int64_t c1) const {
        f32x16 m = all(lse[r]), mean = all(delta[r]);
        bool plain = range.holds(c0, c1);
        for (int64_t c = c0; c < c1; c += LANES) {
            f32x16 u = load(pr + c), slope = all(1.f);
            if (scores.capped) {
                f32x16 t = tanh(u * all(scores.inverse_cap));
                u = t * all(scores.cap), slope = fma(-t, t, slope);
            }
            f32x16 e = exp2(u - m), d = e * (load(dr + c) - mean);
            if (scores.capped) d *= slope;
            if (!plain) {
                i32x16 inside = lanes_in(range, c);
                e = inside ? e : f32x16{}, d = inside ? d : f32x16{};
            }
            store(pr + c, e), store(dr + c, d);
        }
    }

    /// Rows [r0, r0 + n) of the tile that begins at row `tile`; columns [t0, t1) are what the tile needs.
    void panel(int64_t tile, int64_t r0, int64_t n, int64_t t0, int64_t t1) {
        Range any;
        for (int64_t i = 0; i < n; i++) any.include(seen[r0 - tile + i]);
        float *pp = p + (r0 - tile) * BLOCK, *pd = ds + (r0 - tile) * BLOCK;
        int64_t c0 = t0, c1 = t0;
        if (!any.empty()) {
            c0 = any.from / LANES * LANES, c1 = padded(any.to);
            product({n, c1 - c0, s.D, q + r0 * DP, DP, 1, kt + c0, BLOCK, pp + c0, BLOCK});
            product({n, c1 - c0, s.Dv, dy + r0 * DvP, DvP, 1, vt + c0, BLOCK, pd + c0, BLOCK});
        }
        for (int64_t i = 0; i < n; i++) {
            float *pr = pp + i * BLOCK, *dr = pd + i * BLOCK;
            row(pr, dr, r0 + i, seen[r0 - tile + i], c0, c1);
            for (float* x : {pr, dr})
                std::fill(x + t0, x + c0, 0.f), std::fill(x + c1, x + std::max(c1, t1), 0.f);
        }
        if (g.dq.data && !any.empty())
            product({n, DP, any.to - any.from, pd + any.from, BLOCK, 1, k + any.from * DP, DP, dq + r0 * DP,
                     DP, Start::add});
    }

    /// dV += P^T dY and dK += dS^T Q for rows [r0, r1) and the columns `any`; a panel of keys skips the rows
    /// that see none of it.
    void keys(int64_t r0, int64_t r1, const Range& any) {
        for (int64_t j = any.from; j < any.to; j += ROWS) {
            int64_t n = std::min<int64_t>(ROWS, any.to - j), a = r0, b = r1;
            while (a < b && !seen[a - r0].touches(j, j + n)) a++;
            while (a < b && !seen[b - 1 - r0].touches(j, j + n)) b--;
            int64_t at = (a - r0) * BLOCK + j;
            if (g.dv.data)
                product({n, DvP, b - a, p + at, 1, BLOCK, dy + a * DvP, DvP, dv + j * DvP, DvP, Start::add});
            if (g.dk.data)
                product({n, DP, b - a, ds + at, 1, BLOCK, q + a * DP, DP, dk + j * DP, DP, Start::add});
        }
    }

    void block(int64_t b) {
        int64_t row = s.key_rows(b), n = std::min(BLOCK, s.keys - b * BLOCK);
        const X *key = s.k.at(row, s.g), *value = s.v.at(row, s.g);
        pack_transposed(kt, BLOCK, key, s.k.row_step, n, s.D);
        pack_transposed(vt, BLOCK, value, s.v.row_step, n, s.Dv);
        pack_rows(k, DP, key, s.k.row_step, n, n, s.D);
        std::memset(dk, 0, size_t(n * DP) * sizeof(float));
        std::memset(dv, 0, size_t(n * DvP) * sizeof(float));
        for (int64_t r0 = 0; r0 < rows; r0 += TILE) {
            int64_t r1 = std::min(rows, r0 + TILE);
            Range any;
            for (int64_t r = r0; r < r1; r++) any.include(seen[r - r0] = visible.in_block(r, b));
            if (any.empty()) continue;
            prefetch(b + 1, r0 / TILE, (rows + TILE - 1) / TILE);
            int64_t t0 = any.from / LANES * LANES, t1 = padded(any.to), panels = (r1 - r0 + ROWS - 1) / ROWS;
            for (int64_t i = 0; i < panels; i++) {
                int64_t from = r0 + (r1 - r0) * i / panels, to = r0 + (r1 - r0) * (i + 1) / panels;
                panel(r0, from, to - from, t0, t1);
            }
            keys(r0, r1, any);
        }
        const float ln2 = float(1 / Scores::LOG2E); // q carries scale * log2(e)
        for (int64_t j = 0; j < n; j++) {
            if (g.dk.data) unpack_row(g.dk.at(row + j, s.g), dk + j * DP, s.D, ln2, g.add_k);
            if (g.dv.data) unpack_row(g.dv.at(row + j, s.g), dv + j * DvP, s.Dv, 1.f, g.add_v);
        }
    }

    void run() {
        for (int64_t b = 0; b * BLOCK < s.keys; b++) block(b);
        for (int64_t r = 0; r < rows && g.dq.data; r++)
            unpack_row(g.dq.at(s.row_in_q(r), s.head(r)), dq + r * DP, s.D, float(s.scale), g.add_q);
    }
};

} // namespace

template <class X> void backward(const Sequence<X>& s, const Gradients<X>& g) { Task<X>(s, g).run(); }
template void backward(const Sequence<float>& s, const Gradients<float>& g);
template void backward(const Sequence<bf16>& s, const Gradients<bf16>& g);

} // namespace nvl::attend
