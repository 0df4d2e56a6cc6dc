#include "kernels/moe/balance.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/sums.h"
#include "kernels/moe/router.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

// p = softmax(x); returns log sum exp.
template <class X, class A> static A softmax_row(const X* x, A* p, int64_t E) {
    A most = A(x[0]), sum = 0;
    for (int64_t e = 1; e < E; e++) most = std::max(most, A(x[e]));
    for (int64_t e = 0; e < E; e++) sum += p[e] = std::exp(A(x[e]) - most);
    for (int64_t e = 0; e < E; e++) p[e] /= sum;
    return most + std::log(sum);
}

static void sums_of(Out sums, Out counts, In x, In choice) {
    int64_t E = x.cols();
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        block_sums<A>(
            x.rows(), E,
            [&](int64_t t, A* to) {
                std::vector<A> p(static_cast<size_t>(E));
                softmax_row(x.row<X>(t), p.data(), E);
                for (int64_t e = 0; e < E; e++) to[e] += p[size_t(e)];
            },
            [&](const A* s) { std::copy_n(s, E, sums.as<A>()); });
        std::fill_n(counts.as<A>(), E, A(0));
        for (int64_t t = 0; t < choice.rows(); t++)
            for (int64_t k = 0; k < choice.cols(); k++) counts.as<A>()[choice.row<int32_t>(t)[k]] += 1;
    });
}

/// dx[t][e] from the row's softmax p and log sum exp: body(t, p, lse, put).
template <class F> static void softmax_gradient_rows(Acc& dx, const In& x, F gradient) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t E = x.cols();
        parallel_for(x.rows(), row_grain(8 * E), [&](int64_t begin, int64_t end) {
            std::vector<A> p(static_cast<size_t>(E));
            for (int64_t t = begin; t < end; t++) {
                A lse = softmax_row(x.row<X>(t), p.data(), E);
                gradient.template operator()<A>(p.data(), lse);
                put_row(dx, dx.row<X>(t), E, [&](int64_t e) { return p[size_t(e)]; });
            }
        });
    });
}

static void sums_back(Acc dx, In dsums, In x) {
    int64_t E = x.cols();
    softmax_gradient_rows(dx, x, [&]<class A>(A* p, A) {
        const A* d = dsums.as<A>();
        A mean = lane_sum<A>(E, [&](int64_t e) { return p[e] * d[e]; });
        for (int64_t e = 0; e < E; e++) p[e] *= d[e] - mean;
    });
}

static void z_back(Acc dx, In dloss, In x) {
    int64_t E = x.cols(), T = x.rows();
    softmax_gradient_rows(dx, x, [&]<class A>(A* p, A lse) {
        A f = *dloss.as<A>() * 2 * lse / A(T);
        for (int64_t e = 0; e < E; e++) p[e] *= f;
    });
}

template <class F> static void dispatch_sums(Dtype dtype, F f) {
    dtype == Dtype::f64 ? f.template operator()<double>() : f.template operator()<float>();
}

static void balance(Out loss, In sums, In counts) {
    dispatch_sums(sums.dtype, [&]<class A> {
        int64_t E = sums.dim(0);
        const A *s = sums.as<A>(), *n = counts.as<A>();
        A rows = lane_sum<A>(E, [&](int64_t e) { return s[e]; });
        rows = std::max(A(1), std::round(rows)); // each row's probabilities add up to one
        *loss.as<A>() = A(E) * lane_sum<A>(E, [&](int64_t e) { return n[e] * s[e]; }) / (rows * rows);
    });
}
static void balance_back(Acc dsums, In dloss, In sums, In counts) {
    dispatch_sums(sums.dtype, [&]<class A> {
        int64_t E = sums.dim(0);
        const A *s = sums.as<A>(), *n = counts.as<A>();
        A rows = std::max(A(1), std::round(lane_sum<A>(E, [&](int64_t e) { return s[e]; })));
        put_row(dsums, dsums.row<A>(0), E,
                [&](int64_t e) { return *dloss.as<A>() * A(E) * n[e] / (rows * rows); });
    });
}

static void z_loss(Out loss, In x) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t T = x.rows(), E = x.cols();
        block_sums<A>(
            T, 1,
            [&](int64_t t, A* to) {
                std::vector<A> p(static_cast<size_t>(E));
                A lse = softmax_row(x.row<X>(t), p.data(), E);
                *to += lse * lse;
            },
            [&](const A* s) { *loss.as<A>() = *s / A(std::max<int64_t>(1, T)); });
    });
}

constinit Kernel<void(Out, Out, In, In)> routing_sums_forward{"routing_sums", sums_of};
constinit Kernel<void(Acc, In, In)> routing_sums_backward{"routing_sums_backward", sums_back};
constinit Kernel<void(Out, In, In)> balance_loss_forward{"balance_loss", balance};
constinit Kernel<void(Acc, In, In, In)> balance_loss_backward{"balance_loss_backward", balance_back};
constinit Kernel<void(Out, In)> router_z_forward{"router_z_loss", z_loss};
constinit Kernel<void(Acc, In, In)> router_z_backward{"router_z_loss_backward", z_back};

RoutingSums routing_sums(Tensor x, Tensor choice) {
    check(x.shape().rank == 2 && choice.shape().rank == 2 && x.dim(0) == choice.dim(0),
          "routing_sums: logits %s and choices %s", x.shape().text().c_str(), choice.shape().text().c_str());
    Tape& t = tape();
    Types type = summed(x.type);
    Dtype d = sum_dtype(x.dtype());
    RoutingSums r{t.tensor("routing_sums", {x.dim(1)}, d, type),
                  t.tensor("routing_counts", {x.dim(1)}, d, type)};
    t.run(routing_sums_forward, r.sums, r.counts, x, choice);
    t.on_backward({r.sums}, [=, &t] { t.run(routing_sums_backward, t.into(x), t.grad(r.sums), x); });
    return r;
}

Tensor balance_loss(Tensor sums, Tensor counts) {
    expect_same_shape("balance_loss", sums, counts);
    Tape& t = tape();
    Tensor loss = t.tensor("balance_loss", {1}, sums.dtype(), sums.type);
    t.run(balance_loss_forward, loss, sums, counts);
    t.on_backward({loss},
                  [=, &t] { t.run(balance_loss_backward, t.into(sums), t.grad(loss), sums, counts); });
    return loss;
}

Tensor router_z_loss(Tensor x) {
    Tape& t = tape();
    Tensor loss = t.tensor("router_z_loss", {1}, sum_dtype(x.dtype()), summed(x.type));
    t.run(router_z_forward, loss, x);
    t.on_backward({loss}, [=, &t] { t.run(router_z_backward, t.into(x), t.grad(loss), x); });
    return loss;
}

static const std::vector<std::string> CASES = {"T=1 E=1 K=1", "T=7 E=5 K=2", "T=70 E=16 K=4",
                                               "bench T=4096 E=128 K=8"};
static RegisterOp balance_op{{
    .name = "balance_loss",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        int64_t E = c["E"], K = c["K"];
        Tensor x = c.input({T, E});
        Tensor choice = c.integers({T, K}, [=](int64_t i) { return int32_t((i / K * 3 + i % K) % E); });
        RoutingSums r = routing_sums(x, choice);
        return {balance_loss(r.sums, r.counts)};
    },
    .cases = CASES,
    .f32_tolerance = 1e-5,
}};
static RegisterOp z_op{{
    .name = "router_z_loss",
    .build = [](Case& c) -> std::vector<Tensor> {
        return {router_z_loss(c.input({c.rows("T"), c["E"]}))};
    },
    .cases = CASES,
}};

} // namespace nvl
