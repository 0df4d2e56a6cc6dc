#include "kernels/moe/router.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

namespace {

// One row's scores; buffers that a thread uses for all its rows.
template <class A> struct Row {
    std::vector<A> logit, score, rank;
    std::vector<int32_t> order;
    explicit Row(int64_t E) : logit(size_t(E)), score(size_t(E)), rank(size_t(E)), order(size_t(E)) {}

    template <class X> void read(const X* x, const RouterOptions& o) {
        size_t E = logit.size();
        A cap = A(o.softcap), most = -std::numeric_limits<A>::infinity(), sum = 0;
        for (size_t e = 0; e < E; e++) {
            logit[e] = cap != 0 ? cap * std::tanh(A(x[e]) / cap) : A(x[e]);
            most = std::max(most, logit[e]);
        }
        for (size_t e = 0; e < E; e++) {
            score[e] = o.score == Score::softmax ? std::exp(logit[e] - most) : 1 / (1 + std::exp(-logit[e]));
            sum += score[e];
        }
        if (o.score == Score::softmax)
            for (A& s : score) s /= sum;
    }

    // The worth of experts [from, to) as a group, by their rank.
    A group_worth(size_t from, size_t to, Score s) const {
        A first = -std::numeric_limits<A>::infinity(), second = first;
        for (size_t e = from; e < to; e++)
            if (rank[e] > first)
                second = std::exchange(first, rank[e]);
            else
                second = std::max(second, rank[e]);
        return s == Score::softmax || to - from < 2 ? first : first + second;
    }

    void drop_groups(const RouterOptions& o) {
        auto G = size_t(o.groups), size = rank.size() / G;
        std::vector<A> worth(G);
        std::vector<size_t> by_worth(G);
        std::iota(by_worth.begin(), by_worth.end(), 0);
        for (size_t g = 0; g < G; g++) worth[g] = group_worth(g * size, (g + 1) * size, o.score);
        std::stable_sort(by_worth.begin(), by_worth.end(),
                         [&](size_t a, size_t b) { return worth[a] > worth[b]; });
        for (size_t i = size_t(o.top_groups); i < G; i++)
            std::fill_n(rank.begin() + long(by_worth[i] * size), size, -std::numeric_limits<A>::infinity());
    }

    void choose(const A* correction, const RouterOptions& o, int32_t* choice) {
        for (size_t e = 0; e < rank.size(); e++) rank[e] = score[e] + (correction ? correction[e] : A(0));
        if (o.top_groups < o.groups) drop_groups(o);
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), order.begin() + o.top_k, order.end(), [&](int32_t a, int32_t b) {
            A x = rank[size_t(a)], y = rank[size_t(b)];
            return x > y || (x == y && a < b);
        });
        std::copy_n(order.begin(), o.top_k, choice);
    }

    A chosen_sum(const int32_t* choice, int64_t K) const {
        A sum = 0;
        for (int64_t k = 0; k < K; k++) sum += score[size_t(choice[k])];
        return sum;
    }
};

} // namespace

static void forward(Out weight, Out choice, In x, In correction, RouterOptions o, bool corrected) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        std::vector<A> bias;
        if (corrected)
            dispatch(correction.dtype, [&]<class B> {
                for (int64_t e = 0; e < x.cols(); e++) bias.push_back(A(correction.as<B>()[e]));
            });
        parallel_for(x.rows(), row_grain(8 * x.cols()), [&](int64_t begin, int64_t end) {
            Row<A> row(x.cols());
            for (int64_t t = begin; t < end; t++) {
                auto* c = choice.row<int32_t>(t);
                A* w = weight.row<A>(t);
                row.read(x.row<X>(t), o);
                row.choose(bias.empty() ? nullptr : bias.data(), o, c);
                A by = A(o.scale) / (o.renormalise ? row.chosen_sum(c, o.top_k) : A(1));
                for (int64_t k = 0; k < o.top_k; k++) w[k] = row.score[size_t(c[k])] * by;
            }
        });
    });
}

// ds into `d`: the gradient of the scores, zero where an expert was not chosen.
template <class A> static void score_gradient(const Row<A>& row, const int32_t* c, const A* dweight,
                                              const RouterOptions& o, std::vector<A>& d) {
    std::fill(d.begin(), d.end(), A(0));
    A sum = row.chosen_sum(c, o.top_k), mean = 0;
    if (o.renormalise)
        for (int64_t k = 0; k < o.top_k; k++) mean += A(o.scale) * dweight[k] * row.score[size_t(c[k])] / sum;
    for (int64_t k = 0; k < o.top_k; k++) {
        A g = A(o.scale) * dweight[k];
        d[size_t(c[k])] = o.renormalise ? (g - mean) / sum : g;
    }
}

static void backward(Acc dx, In dweight, In x, In choice, RouterOptions o) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        auto E = size_t(x.cols());
        parallel_for(x.rows(), row_grain(8 * x.cols()), [&](int64_t begin, int64_t end) {
            Row<A> row(x.cols());
            std::vector<A> d(E);
            for (int64_t t = begin; t < end; t++) {
                row.read(x.row<X>(t), o);
                score_gradient(row, choice.row<int32_t>(t), dweight.row<A>(t), o, d);
                A mean = 0;
                for (size_t e = 0; e < E; e++) mean += row.score[e] * d[e];
                put_row(dx, dx.row<X>(t), x.cols(), [&](int64_t c) {
                    auto e = size_t(c);
                    A s = row.score[e],
                      g = o.score == Score::softmax ? s * (d[e] - mean) : d[e] * s * (1 - s);
                    A y = o.softcap ? row.logit[e] / A(o.softcap) : A(0);
                    return g * (1 - y * y);
                });
            }
        });
    });
}

constinit Kernel<void(Out, Out, In, In, RouterOptions, bool)> route_forward{"route", forward};
constinit Kernel<void(Acc, In, In, In, RouterOptions)> route_backward{"route_backward", backward};

Routing route(Tensor x, const RouterOptions& o, Tensor correction) {
    int64_t E = x.dim(-1);
    check(x.shape().rank == 2, "route: %s is %s; expected (tokens, experts)", x.name(),
          x.shape().text().c_str());
    check(o.top_k >= 1 && o.top_k <= E, "route: %ld experts for each token; expected 1 to %ld", o.top_k, E);
    check(o.groups >= 1 && E % o.groups == 0 && o.top_groups >= 1 && o.top_groups <= o.groups &&
              o.top_k <= o.top_groups * (E / o.groups),
          "route: %ld experts in %ld groups, of which %ld are open, cannot give %ld to each token", E,
          o.groups, o.top_groups, o.top_k);
    check(!correction || correction.shape() == Shape{E}, "route: the correction is %s; expected (%ld)",
          correction.shape().text().c_str(), E);
    Tape& t = tape();
    Types type = join("route", Rule::nonlinear, {x});
    Tensor weight = t.tensor("route", {x.dim(0), o.top_k}, sum_dtype(x.dtype()), type),
           choice = t.tensor("choice", {x.dim(0), o.top_k}, Dtype::i32, type);
    t.run(route_forward, weight, choice, x, correction ? correction : x, o, bool(correction));
    t.on_backward({weight}, [=, &t] { t.run(route_backward, t.into(x), t.grad(weight), x, choice, o); });
    return {weight, choice};
}

static RegisterOp op{{
    .name = "route",
    .build = [](Case& c) -> std::vector<Tensor> {
        RouterOptions o{.top_k = c["K"],
                        .score = c.get("sigmoid", 0) ? Score::sigmoid : Score::softmax,
                        .renormalise = c.get("renormalise", 0) != 0,
                        .scale = double(c.get("scale", 1)),
                        .softcap = double(c.get("softcap", 0)),
                        .groups = c.get("groups", 1),
                        .top_groups = c.get("open", 1)};
        Dim T = c.rows("T");
        Tensor x = c.input({T, c["E"]});
        if (!c.get("correction", 0)) return {route(x, o).weight};
        Tensor correction = c.constant({c["E"]}, 0.5);
        Routing r = route(x, o, correction);
        return {r.weight, r.choice};
    },
    .cases = {"T=1 E=1 K=1", "T=7 E=8 K=2", "T=9 E=5 K=3 renormalise=1 softcap=2", "T=33 E=16 K=4 scale=2",
              "T=5 E=12 K=3 groups=4 open=2",
              "T=7 E=12 K=4 sigmoid=1 correction=1 groups=3 open=2 renormalise=1 scale=2",
              "bench T=4096 E=128 K=8 renormalise=1"},
}};

} // namespace nvl
