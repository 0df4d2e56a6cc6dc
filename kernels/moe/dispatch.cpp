#include "kernels/moe/dispatch.h"

#include <algorithm>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/sums.h"
#include "kernels/moe/router.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void sort(Out source, Out position, Out offsets, In choice, int64_t capacity) {
    int64_t E = offsets.dim(0) - 1, K = choice.cols(), T = choice.rows();
    auto *s = source.as<int32_t>(), *o = offsets.as<int32_t>();
    std::vector<int32_t> count(size_t(E), 0);
    for (int64_t t = 0; t < T; t++)
        for (int64_t k = 0; k < K; k++) {
            int32_t e = choice.row<int32_t>(t)[k];
            check(e >= 0 && e < E, "moe_sort: expert %d of token %ld; there are %ld experts", e, t, E);
            int32_t& n = count[size_t(e)];
            position.row<int32_t>(t)[k] = capacity && n == capacity ? -1 : n++;
        }
    o[0] = 0;
    for (int64_t e = 0; e < E; e++) o[e + 1] = o[e] + count[size_t(e)];
    for (int64_t n = o[E]; n < source.dim(0); n++) s[n] = -1;
    for (int64_t t = 0; t < T; t++)
        for (int64_t k = 0; k < K; k++)
            if (int32_t& n = position.row<int32_t>(t)[k]; n >= 0)
                s[n += o[choice.row<int32_t>(t)[k]]] = int32_t(t * K + k);
}

static void permute_rows(Out y, In x, In source, In, int64_t K) {
    dispatch(x.dtype, [&]<class X> {
        for_rows(y, [&](int64_t n) {
            int32_t s = source.as<int32_t>()[n];
            if (s < 0)
                std::fill_n(y.row<X>(n), y.cols(), X(0));
            else
                std::copy_n(x.row<X>(s / K), x.cols(), y.row<X>(n));
        });
    });
}

static void permute_back(Acc dx, In dy, In position) {
    if (!dx) return;
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t K = position.cols(), C = dy.cols();
        parallel_for(dx.rows(), row_grain(C * K), [&](int64_t begin, int64_t end) {
            std::vector<A> sum(size_t(C), A(0));
            for (int64_t t = begin; t < end; t++) {
                std::fill(sum.begin(), sum.end(), A(0));
                for (int64_t k = 0; k < K; k++)
                    if (int32_t n = position.row<int32_t>(t)[k]; n >= 0) {
                        const X* d = dy.row<X>(n);
                        for (int64_t c = 0; c < C; c++) sum[size_t(c)] += A(d[c]);
                    }
                put_row(dx, dx.row<X>(t), C, [&](int64_t c) { return sum[size_t(c)]; });
            }
        });
    });
}

static void unpermute_rows(Out y, In x, In weight, In position) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t K = position.cols(), C = x.cols();
        parallel_for(y.rows(), row_grain(C * K), [&](int64_t begin, int64_t end) {
            std::vector<A> sum(size_t(C), A(0));
            for (int64_t t = begin; t < end; t++) {
                std::fill(sum.begin(), sum.end(), A(0));
                for (int64_t k = 0; k < K; k++)
                    if (int32_t n = position.row<int32_t>(t)[k]; n >= 0) {
                        A w = weight.row<A>(t)[k];
                        const X* v = x.row<X>(n);
                        for (int64_t c = 0; c < C; c++) sum[size_t(c)] += w * A(v[c]);
                    }
                X* to = y.row<X>(t);
                for (int64_t c = 0; c < C; c++) to[c] = X(sum[size_t(c)]);
            }
        });
    });
}

static void unpermute_back(Acc dx, Acc dweight, In dy, In x, In weight, In source, In position, In) {
    dispatch(x.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t K = position.cols(), C = x.cols();
        if (dx)
            for_rows(x, [&](int64_t n) {
                int32_t s = source.as<int32_t>()[n];
                A w = s < 0 ? A(0) : weight.row<A>(s / K)[s % K];
                const X* d = dy.row<X>(s < 0 ? 0 : s / K);
                put_row(dx, dx.row<X>(n), C, [&](int64_t c) { return w * A(d[c]); });
            });
        if (!dweight) return;
        for_rows(dy, [&](int64_t t) {
            const X* d = dy.row<X>(t);
            const int32_t* p = position.row<int32_t>(t);
            put_row(dweight, dweight.row<A>(t), K, [&](int64_t k) {
                if (p[k] < 0) return A(0);
                const X* v = x.row<X>(p[k]);
                return lane_sum<A>(C, [&](int64_t c) { return A(d[c]) * A(v[c]); });
            });
        });
    });
}

static double permute_moved(Out y, In x, In source, In, int64_t) {
    return double(x.bytes() + y.bytes() + source.bytes());
}

constinit Kernel<void(Out, Out, Out, In, int64_t)> moe_sort_forward{"moe_sort", sort};
constinit Kernel<void(Out, In, In, In, int64_t)> permute_forward{
    "permute", permute_rows, nullptr, {}, permute_moved};
constinit Kernel<void(Acc, In, In)> permute_backward{"permute_backward", permute_back};
constinit Kernel<void(Out, In, In, In)> unpermute_forward{"unpermute", unpermute_rows};
constinit Kernel<void(Acc, Acc, In, In, In, In, In, In)> unpermute_backward{"unpermute_backward",
                                                                            unpermute_back};

Dispatch moe_sort(Tensor choice, int64_t experts, int64_t capacity) {
    check(choice.shape().rank == 2 && choice.dtype() == Dtype::i32,
          "moe_sort: %s is %s %s; expected i32 (tokens, choices)", choice.name(), name_of(choice.dtype()),
          choice.shape().text().c_str());
    check(experts >= 1 && capacity >= 0, "moe_sort: %ld experts of capacity %ld", experts, capacity);
    Tape& t = tape();
    Dim T = choice.dim(0);
    int64_t K = choice.dim(1);
    Dispatch d{t.tensor("source", {T * K}, Dtype::i32, choice.type),
               t.tensor("position", {T, K}, Dtype::i32, choice.type),
               t.tensor("offsets", {experts + 1}, Dtype::i32, choice.type)};
    t.run(moe_sort_forward, d.source, d.position, d.offsets, choice, capacity);
    return d;
}

Tensor permute(Tensor x, const Dispatch& d) {
    check(x.shape().rank == 2 && x.dim(0) == d.position.dim(0), "permute: %s is %s; expected (%ld, channels)",
          x.name(), x.shape().text().c_str(), d.position.dim(0).size);
    Tape& t = tape();
    int64_t K = d.position.dim(1);
    Tensor y = t.tensor("permute", {x.dim(0) * K, x.dim(1)}, x.dtype(),
                        join("permute", Rule::nonlinear, {x, d.source}));
    t.run(permute_forward, y, x, d.source, d.offsets, K);
    t.on_backward({y}, [=, &t] { t.run(permute_backward, t.into(x), t.grad(y), d.position); });
    return y;
}

Tensor unpermute(Tensor x, Tensor weight, const Dispatch& d) {
    check(x.shape().rank == 2 && x.dim(0) == d.source.dim(0) && weight.shape() == d.position.shape() &&
              weight.dtype() == sum_dtype(x.dtype()),
          "unpermute: %s is %s and its weights are %s %s; expected (%ld, channels) and %s %s", x.name(),
          x.shape().text().c_str(), name_of(weight.dtype()), weight.shape().text().c_str(),
          d.source.dim(0).size, name_of(sum_dtype(x.dtype())), d.position.shape().text().c_str());
    Tape& t = tape();
    Tensor y = t.tensor("unpermute", {weight.dim(0), x.dim(1)}, x.dtype(),
                        join("unpermute", Rule::nonlinear, {x, weight}));
    t.run(unpermute_forward, y, x, weight, d.position);
    t.on_backward({y}, [=, &t] {
        t.run(unpermute_backward, t.into(x), t.into(weight), t.grad(y), x, weight, d.source, d.position,
              d.offsets);
    });
    return y;
}

static Dispatch dispatch_of(Case& c, Dim T) {
    int64_t K = c["K"], E = c["E"];
    Tensor choice = c.integers({T, K}, [=](int64_t i) { // K different experts, the first ones more often
        int64_t t = i / K;
        return int32_t((t * t % 7 % E + i % K) % E);
    });
    return moe_sort(choice, E, c.get("capacity", 0));
}
static const std::vector<std::string> CASES = {"T=1 E=1 K=1 C=3", "T=7 E=4 K=2 C=20", "T=33 E=9 K=3 C=17",
                                               "T=20 E=4 K=2 C=16 capacity=5", "bench T=4096 E=64 K=8 C=768"};

static RegisterOp permute_op{{
    .name = "permute",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Dispatch d = dispatch_of(c, T);
        Tensor x = c.input({T, c["C"]});
        return {permute(x, d)};
    },
    .cases = CASES,
}};
static RegisterOp unpermute_op{{
    .name = "unpermute",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Tensor logits = c.input({T, c["E"]}), x = c.input({T * c["K"], c["C"]});
        Routing r = route(logits, {.top_k = c["K"]});
        return {unpermute(x, r.weight, moe_sort(r.choice, c["E"], c.get("capacity", 0)))};
    },
    .cases = CASES,
}};
static RegisterOp sort_op{{
    .name = "moe_sort",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dispatch d = dispatch_of(c, c.rows("T"));
        return {reshape(d.source, d.position.shape()), d.position, d.offsets};
    },
    .cases = CASES,
    .gradients = false,
}};

} // namespace nvl
