#include "kernels/attention/attention.h"

#include <vector>

#include "kernels/attention/core.h"
#include "kernels/cpu/sums.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

using namespace attend;

namespace {

std::vector<int64_t> starts_of(const In& sequence_starts, int64_t rows) {
    const int32_t* at = sequence_starts.row<int32_t>(0);
    std::vector<int64_t> starts(at, at + sequence_starts.numel());
    check(starts.front() == 0 && starts.back() == rows,
          "attention: sequence_starts begins with %ld and ends with %ld; expected 0 and the number of rows, "
          "%ld",
          starts.front(), starts.back(), rows);
    for (size_t n = 1; n < starts.size(); n++)
        check(starts[n - 1] <= starts[n], "attention: sequence_starts[%zu] = %ld is less than the one before",
              n, starts[n]);
    return starts;
}

/// One Sequence for each sequence that is not empty and each key/value head, the longest first.
template <class X> std::vector<Sequence<X>> sequences_of(const In& q, const In& k, const In& v,
                                                         const In& sequence_starts, const View& sinks,
                                                         const AttentionOptions& o) {
    std::vector<int64_t> starts = starts_of(sequence_starts, q.dim(0));
    std::vector<Sequence<X>> list;
    Sequence<X> s(q, k, v, sinks, o);
    for (size_t n = 1; n < starts.size(); n++) {
        s.row = s.key_row = starts[n - 1], s.queries = s.keys = starts[n] - starts[n - 1];
        for (s.g = 0; s.g < k.dim(1) && s.queries; s.g++) list.push_back(s);
    }
    std::stable_sort(list.begin(), list.end(),
                     [](const auto& a, const auto& b) { return a.queries > b.queries; });
    return list;
}

double flops(int64_t rows, int64_t heads, double per_pair, const AttentionOptions& o) {
    return attention_pairs(rows, o) * double(heads) * per_pair;
}
double forward_flops(Out, Out, In q, In, In v, In, In, AttentionOptions o, bool) {
    return flops(q.dim(0), q.dim(1), 2.0 * double(q.dim(2) + v.dim(2)), o);
}
double backward_flops(Acc, Acc, Acc, AccSum, In, In, In, In q, In, In v, In, In, AttentionOptions o, bool) {
    return flops(q.dim(0), q.dim(1), double(6 * q.dim(2) + 4 * v.dim(2)), o);
}

void forward_cpu(Out y, Out lse, In q, In k, In v, In sequence_starts, In sinks, AttentionOptions o,
                 bool sunk) {
    dispatch(q.dtype, [&]<class X> {
        auto list = sequences_of<X>(q, k, v, sequence_starts, sunk ? sinks : View{}, o);
        forward(list, Heads<X>(y), Heads<sum_t<X>>(lse));
    });
}

/// dsink of a head = -sum over rows of exp(sink - lse) delta, in a fixed order.
template <class X> void sink_gradients(AccSum dsinks, In dy, In y, In lse, In sinks) {
    using A = sum_t<X>;
    Heads<const X> d(dy), v(y);
    Heads<const A> log_sum(lse);
    const X* sink = sinks.as<X>();
    int64_t H = y.dim(1), Dv = y.dim(2);
    auto row = [&](int64_t i, A* sums) {
        for (int64_t h = 0; h < H; h++) {
            const X *dr = d.at(i, h), *vr = v.at(i, h);
            A delta = lane_sum<A>(Dv, [&](int64_t c) { return A(dr[c]) * A(vr[c]); });
            sums[h] -= std::exp(A(sink[h]) - *log_sum.at(i, h)) * delta;
        }
    };
    block_sums<A>(y.dim(0), H, row, [&](const A* sums) {
        for (int64_t h = 0; h < H; h++) dsinks.put(dsinks.as<A>()[h], sums[h]);
    });
}

void backward_cpu(Acc dq, Acc dk, Acc dv, AccSum dsinks, In dy, In y, In lse, In q, In k, In v,
                  In sequence_starts, In sinks, AttentionOptions o, bool sunk) {
    dispatch(q.dtype, [&]<class X> {
        if (dsinks) sink_gradients<X>(dsinks, dy, y, lse, sinks);
        if (!dq && !dk && !dv) return;
        auto list = sequences_of<X>(q, k, v, sequence_starts, sunk ? sinks : View{}, o);
        Gradients<X> g{Heads<const X>(dy),
                       Heads<const X>(y),
                       Heads<const sum_t<X>>(lse),
                       Heads<X>(dq),
                       Heads<X>(dk),
                       Heads<X>(dv),
                       dq.add,
                       dk.add,
                       dv.add};
        bool wake = worth_waking(
            backward_flops(dq, dk, dv, dsinks, dy, y, lse, q, k, v, sequence_starts, sinks, o, sunk));
        run_tasks(int64_t(list.size()), wake, [&](int64_t i) { backward(list[size_t(i)], g); });
    });
}

} // namespace

constinit Kernel<void(Out, Out, In, In, In, In, In, AttentionOptions, bool)> attention_forward{
    "attention", forward_cpu, forward_flops};
constinit Kernel<void(Acc, Acc, Acc, AccSum, In, In, In, In, In, In, In, In, AttentionOptions, bool)>
    attention_backward{"attention_backward", backward_cpu, backward_flops};

double attention_pairs(int64_t rows, const AttentionOptions& o) {
    double n = double(o.length ? std::min(o.length, rows) : rows);
    double w = o.window ? std::min(double(o.window), n) : n;
    double causal = w * (w + 1) / 2 + (n - w) * w; // of one sequence
    return n ? double(rows) / n * (o.causal ? causal : o.window ? 2 * causal - n : n * n) : 0;
}

void attend::check_options(const char* op, const AttentionOptions& o) {
    check(o.window >= 0 && o.softcap >= 0 && o.scale >= 0 && o.length >= 0,
          "%s: window, scale, softcap and length must not be negative", op);
}

void attend::check_sinks(const char* op, const Tensor& sinks, const Tensor& q) {
    if (!sinks) return;
    check(sinks.shape().rank == 1 && sinks.dim(0) == q.dim(1) && sinks.dtype() == q.dtype(),
          "%s: expected sinks (%ld) %s, one for each query head, found %s %s", op, q.dim(1).size,
          name_of(q.dtype()), sinks.shape().text().c_str(), name_of(sinks.dtype()));
}

Tensor attention(Tensor q, Tensor k, Tensor v, Tensor sequence_starts, AttentionOptions o, Tensor sinks) {
    check(
        q.shape().rank == 3 && k.shape().rank == 3 && v.shape().rank == 3 && k.dim(0) == q.dim(0) &&
            v.dim(0) == q.dim(0) && k.dim(2) == q.dim(2) && k.dim(1) == v.dim(1) && k.dim(1).size > 0 &&
            q.dim(1) % k.dim(1) == 0,
        "attention: expected q (T, H, D), k (T, G, D), v (T, G, Dv) with H a multiple of G; found %s, %s, %s",
        q.shape().text().c_str(), k.shape().text().c_str(), v.shape().text().c_str());
    check(sequence_starts.dtype() == Dtype::i32 && sequence_starts.shape().rank == 1 &&
              sequence_starts.dim(0) >= 2,
          "attention: expected sequence_starts (N + 1) i32, found %s %s",
          sequence_starts.shape().text().c_str(), name_of(sequence_starts.dtype()));
    check_options("attention", o), check_sinks("attention", sinks, q);
    check(k.dtype() == q.dtype() && v.dtype() == q.dtype(), "attention: q is %s, k is %s, v is %s",
          name_of(q.dtype()), name_of(k.dtype()), name_of(v.dtype()));
    Tape& t = tape();
    Types type = sinks ? join("attention", Rule::nonlinear, {q, k, v, sinks})
                       : join("attention", Rule::nonlinear, {q, k, v});
    Tensor y = t.tensor("attention", {q.dim(0), q.dim(1), v.dim(2)}, q.dtype(), type),
           lse = t.tensor("lse", {q.dim(0), q.dim(1)}, sum_dtype(q.dtype()), type);
    Tensor sunk = sinks ? sinks : sequence_starts;
    t.run(attention_forward, y, lse, q, k, v, sequence_starts, sunk, o, bool(sinks));
    t.on_backward({y}, [=, &t] {
        t.run(attention_backward, t.into(q), t.into(k), t.into(v), t.into(sinks), t.grad(y), y, lse, q, k, v,
              sequence_starts, sunk, o, bool(sinks));
    });
    return y;
}

/// Sequences of the case: N of them, lengths uneven unless "even=1"; an empty one at "empty=1".
static Tensor case_starts(Case& c, int64_t T) {
    int64_t N = c.get("N", 1);
    return c.integers({N + 1 + c.get("empty", 0)}, [&](int64_t i) {
        if (i >= N) return int32_t(T);
        return int32_t(c.get("even", 0) ? T * i / N : T * i * i / (N * N));
    });
}

static RegisterOp op{{
    .name = "attention",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        int64_t H = c.get("H", 1), G = c.get("G", H), D = c["D"], Dv = c.get("Dv", D);
        Tensor q, k, v;
        if (c.get("fused", 0)) { // views of one (T, H + 2 G, D) tensor
            Tensor qkv = c.input({T, H + 2 * G, D});
            q = slice(qkv, 1, 0, H), k = slice(qkv, 1, H, H + G), v = slice(qkv, 1, H + G, H + 2 * G);
        } else
            q = c.input({T, H, D}), k = c.input({T, G, D}), v = c.input({T, G, Dv});
        AttentionOptions o{.causal = c.get("causal", 1) != 0,
                           .window = c.get("window", 0),
                           .scale = double(c.get("scale", 0)) / 100,
                           .softcap = double(c.get("softcap", 0)),
                           .length = c.get("length", 0)};
        Tensor sinks = c.get("sinks", 0) ? c.weight({H}) : Tensor{};
        return {attention(q, k, v, case_starts(c, c["T"]), o, sinks)};
    },
    .cases = {"T=1 D=1",
              "T=2 D=3 H=3 N=2 empty=1",
              "T=7 D=16 Dv=5",
              "T=33 D=20 H=2 causal=0",
              "T=65 D=64 H=4 G=2 N=3",
              "T=130 D=16 H=2 window=5",
              "T=100 D=16 N=2 causal=0 window=30 Dv=32",
              "T=71 D=80 H=3 G=1 softcap=3 fused=1 scale=20",
              "T=190 D=128 Dv=24 window=70",
              "T=1060 D=4 window=60",
              "T=70 D=64 H=4 G=2 N=2 sinks=1 window=20",
              "T=66 D=192 Dv=128 H=2",
              "T=40 D=256 H=2 G=1",
              "T=80 D=250 Dv=130",
              "T=150 D=96 H=4 G=2 causal=0 sinks=1",
              "T=140 D=64 H=4 G=1 N=3",
              "bench T=256 D=64 H=12 N=4 even=1 length=64 fused=1",
              "bench T=256 D=64 H=12 fused=1",
              "bench T=1024 D=64 H=12 fused=1",
              "bench T=2048 D=128 H=8 G=2",
              "bench T=4096 D=64 H=4 window=256"},
}};

} // namespace nvl
