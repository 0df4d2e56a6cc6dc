// Attention by its formulas, in f64: what gradient checks compare with.
#include <vector>

#include "kernels/attention/core.h"

namespace nvl::attend {

namespace {

struct Row { // one query row: its scores z over the visible keys, and the derivative of z by s
    int64_t first;
    std::vector<double> z, slope;
    Row(const Sequence<double>& s, int64_t r) : first(s.first_key(r)) {
        const double* q = s.q.at(s.row_in_q(r), s.head(r));
        for (int64_t j = first; j < s.last_key(r); j++) {
            const double* k = s.k.at(s.key_rows(j / BLOCK) + j % BLOCK, s.g);
            double dot = 0;
            for (int64_t d = 0; d < s.D; d++) dot += q[d] * k[d];
            double t = s.softcap ? std::tanh(s.scale * dot / s.softcap) : 0;
            z.push_back(s.softcap ? s.softcap * t : s.scale * dot);
            slope.push_back(1 - t * t);
        }
    }
};

void head(const Sequence<double>& s, Heads<double> y, Heads<double> lse) {
    for (int64_t r = 0; r < s.rows(); r++) {
        Row row(s, r);
        double m = *std::max_element(row.z.begin(), row.z.end()), sum = 0;
        if (s.sinks) m = std::max(m, s.sinks[s.head(r)]), sum = std::exp(s.sinks[s.head(r)] - m);
        for (double& z : row.z) sum += z = std::exp(z - m);
        double* to = y.at(s.row_in_q(r), s.head(r));
        std::fill(to, to + s.Dv, 0);
        for (size_t n = 0; n < row.z.size(); n++) {
            int64_t j = row.first + int64_t(n);
            const double* v = s.v.at(s.key_rows(j / BLOCK) + j % BLOCK, s.g);
            for (int64_t c = 0; c < s.Dv; c++) to[c] += row.z[n] / sum * v[c];
        }
        if (lse.data) *lse.at(s.row_in_q(r), s.head(r)) = m + std::log(sum);
    }
}

} // namespace

template <> void forward(const std::vector<Sequence<double>>& list, Heads<double> y, Heads<double> lse) {
    run_tasks(int64_t(list.size()), true, [&](int64_t n) { head(list[size_t(n)], y, lse); });
}

template <> void backward(const Sequence<double>& s, const Gradients<double>& g) {
    std::vector<double> dq(size_t(s.rows() * s.D)), dk(size_t(s.keys * s.D)), dv(size_t(s.keys * s.Dv));
    for (int64_t r = 0; r < s.rows(); r++) {
        Row row(s, r);
        int64_t i = s.row_in_q(r), h = s.head(r);
        const double *q = s.q.at(i, h), *dy = g.dy.at(i, h), *y = g.y.at(i, h);
        double lse = *g.lse.at(i, h), delta = 0;
        for (int64_t c = 0; c < s.Dv; c++) delta += dy[c] * y[c];
        for (size_t n = 0; n < row.z.size(); n++) {
            int64_t j = row.first + int64_t(n);
            const double *k = s.k.at(s.key_row + j, s.g), *v = s.v.at(s.key_row + j, s.g);
            double p = std::exp(row.z[n] - lse), dp = 0;
            for (int64_t c = 0; c < s.Dv; c++) dp += dy[c] * v[c], dv[size_t(j * s.Dv + c)] += p * dy[c];
            double ds = s.scale * p * (dp - delta) * row.slope[n];
            for (int64_t d = 0; d < s.D; d++)
                dq[size_t(r * s.D + d)] += ds * k[d], dk[size_t(j * s.D + d)] += ds * q[d];
        }
    }
    auto put = [](double* to, const double* from, int64_t n, bool add) {
        for (int64_t c = 0; c < n; c++) to[c] = add ? to[c] + from[c] : from[c];
    };
    for (int64_t r = 0; r < s.rows() && g.dq.data; r++)
        put(g.dq.at(s.row_in_q(r), s.head(r)), &dq[size_t(r * s.D)], s.D, g.add_q);
    for (int64_t j = 0; j < s.keys && g.dk.data; j++)
        put(g.dk.at(s.key_row + j, s.g), &dk[size_t(j * s.D)], s.D, g.add_k);
    for (int64_t j = 0; j < s.keys && g.dv.data; j++)
        put(g.dv.at(s.key_row + j, s.g), &dv[size_t(j * s.Dv)], s.Dv, g.add_v);
}

} // namespace nvl::attend
