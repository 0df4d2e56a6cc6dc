#include "kernels/attention/paged.h"

#include <vector>

#include "kernels/attention/core.h"
#include "kernels/cpu/rows.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

using namespace attend;

static_assert(PAGE == BLOCK, "a page is a block of keys: their places in the sequence define the bits");

namespace {

void append_cpu(InOut cache, In x, In slots) {
    const int32_t* slot = slots.row<int32_t>(0);
    int64_t T = x.dim(0), G = x.dim(1), D = x.dim(2);
    for (int64_t t = 0; t < T; t++)
        check(slot[t] >= 0 && slot[t] < cache.dim(0),
              "kv_append: slot %d of token %ld is not a row of the cache, which has %ld", slot[t], t,
              cache.dim(0));
    dispatch(x.dtype, [&]<class X> {
        Heads<X> to(cache);
        Heads<const X> from(x);
        parallel_for(T, row_grain(G * D), [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; t++)
                for (int64_t g = 0; g < G; g++) std::copy_n(from.at(t, g), D, to.at(slot[t], g));
        });
    });
}

/// The sequences that have queries, per key/value head; page tables are checked before anything is read.
template <class X> std::vector<Sequence<X>> sequences_of(const In& q, const In& k, const In& v,
                                                         const In& page_table, const In& query_starts,
                                                         const In& context_lengths, const View& sinks,
                                                         const AttentionOptions& o) {
    int64_t N = context_lengths.numel(), pages = page_table.dim(1), cached = k.dim(0) / PAGE;
    const int32_t *starts = query_starts.row<int32_t>(0), *lengths = context_lengths.row<int32_t>(0);
    check(starts[0] == 0 && starts[N] == q.dim(0),
          "attention_paged: query_starts begins with %d and ends with %d; expected 0 and the number of "
          "queries, %ld",
          starts[0], starts[N], q.dim(0));
    std::vector<Sequence<X>> list;
    Sequence<X> s(q, k, v, sinks, o);
    for (int64_t n = 0; n < N; n++) {
        s.row = starts[n], s.queries = starts[n + 1] - starts[n], s.keys = lengths[n];
        s.first = s.keys - s.queries, s.pages = page_table.row<int32_t>(n);
        check(s.queries >= 0 && s.first >= 0 && s.keys <= pages * PAGE,
              "attention_paged: sequence %ld has %ld queries, a context of %ld and room for %ld", n,
              s.queries, s.keys, pages * PAGE);
        if (!s.queries) continue;
        for (int64_t b = s.mask.first(s.first) / PAGE; b * PAGE < s.keys; b++)
            check(s.pages[b] >= 0 && s.pages[b] < cached,
                  "attention_paged: page %ld of sequence %ld is %d; the cache has %ld pages", b, n,
                  s.pages[b], cached);
        for (s.g = 0; s.g < k.dim(1); s.g++) list.push_back(s);
    }
    return list;
}

double paged_flops(Out, In q, In k, In v, In page_table, In, In, In, AttentionOptions, bool) {
    return 2.0 * double(q.dim(0) * q.dim(1) * (k.dim(2) + v.dim(2)) * page_table.dim(1) * PAGE);
}
double paged_bytes(Out y, In q, In k, In v, In page_table, In starts, In lengths, In, AttentionOptions,
                   bool) {
    double rows = double(page_table.numel() * PAGE), row = double(k.dim(1) * (k.dim(2) + v.dim(2)));
    return rows * row * double(size_of(k.dtype)) + double(q.numel() + y.numel()) * double(size_of(q.dtype)) +
           4.0 * double(page_table.numel() + starts.numel() + lengths.numel());
}

void paged_cpu(Out y, In q, In k, In v, In page_table, In query_starts, In context_lengths, In sinks,
               AttentionOptions o, bool sunk) {
    dispatch(q.dtype, [&]<class X> {
        auto list =
            sequences_of<X>(q, k, v, page_table, query_starts, context_lengths, sunk ? sinks : View{}, o);
        forward(list, Heads<X>(y), Heads<sum_t<X>>());
    });
}

} // namespace

constinit Kernel<void(InOut, In, In)> kv_append_forward{"kv_append", append_cpu};
constinit Kernel<void(Out, In, In, In, In, In, In, In, AttentionOptions, bool)> attention_paged_forward{
    "attention_paged", paged_cpu, paged_flops, {}, paged_bytes};

Tensor kv_append(Tensor cache, Tensor x, Tensor slots) {
    Tape& t = tape();
    check(cache.shape().rank == 3 && x.shape().rank == 3 && cache.dim(1) == x.dim(1) &&
              cache.dim(2) == x.dim(2) && cache.dtype() == x.dtype(),
          "kv_append: the cache is %s %s, the rows to append are %s %s; expected (rows, G, D) and (T, G, D)",
          cache.shape().text().c_str(), name_of(cache.dtype()), x.shape().text().c_str(), name_of(x.dtype()));
    check(slots.dtype() == Dtype::i32 && slots.shape().numel() == x.dim(0).size,
          "kv_append: expected an i32 slot for each of the %ld tokens, found %s %s", x.dim(0).size,
          slots.shape().text().c_str(), name_of(slots.dtype()));
    check(!x.buffer->needs_grad || !t.wants_gradients(),
          "kv_append: no gradient flows through a cache; record with no_grad()");
    t.run(kv_append_forward, cache, x, slots);
    return t.written(cache);
}

Tensor attention_paged(Tensor q, Tensor k, Tensor v, Tensor page_table, Tensor query_starts,
                       Tensor context_lengths, AttentionOptions o, Tensor sinks) {
    check(q.shape().rank == 3 && k.shape().rank == 3 && v.shape().rank == 3 && k.dim(0) == v.dim(0) &&
              k.dim(2) == q.dim(2) && k.dim(1) == v.dim(1) && k.dim(1).size > 0 && q.dim(1) % k.dim(1) == 0 &&
              k.dim(0) % PAGE == 0,
          "attention_paged: expected q (T, H, D), caches (rows, G, D) and (rows, G, Dv) with H a multiple of "
          "G and rows of %ld; found %s, %s, %s",
          PAGE, q.shape().text().c_str(), k.shape().text().c_str(), v.shape().text().c_str());
    check(k.dtype() == q.dtype() && v.dtype() == q.dtype(), "attention_paged: q is %s, the caches %s and %s",
          name_of(q.dtype()), name_of(k.dtype()), name_of(v.dtype()));
    check(page_table.shape().rank == 2 && context_lengths.shape().rank == 1 &&
              query_starts.shape().rank == 1 && page_table.dim(0) == context_lengths.dim(0) &&
              query_starts.dim(0) > context_lengths.dim(0),
          "attention_paged: expected page_table (N, pages), query_starts (N + 1), context_lengths (N); found "
          "%s, %s, %s",
          page_table.shape().text().c_str(), query_starts.shape().text().c_str(),
          context_lengths.shape().text().c_str());
    for (const Tensor& x : {page_table, query_starts, context_lengths})
        check(x.dtype() == Dtype::i32, "attention_paged: %s is %s; expected i32", x.name(),
              name_of(x.dtype()));
    check_options("attention_paged", o), check_sinks("attention_paged", sinks, q);
    Tape& t = tape();
    Types type = sinks ? join("attention_paged", Rule::nonlinear, {q, k, v, sinks})
                       : join("attention_paged", Rule::nonlinear, {q, k, v});
    Tensor y = t.tensor("attention", {q.dim(0), q.dim(1), v.dim(2)}, q.dtype(), type);
    t.run(attention_paged_forward, y, q, k, v, page_table, query_starts, context_lengths,
          sinks ? sinks : context_lengths, o, bool(sinks));
    return y;
}

/// N sequences of contexts up to S whose pages are dealt out in turn; the last ones of each are queries.
static RegisterOp paged_op{{
    .name = "attention_paged",
    .build = [](Case& c) -> std::vector<Tensor> {
        int64_t N = c["N"], S = c["S"], queries = c["Q"], pages = (S + PAGE - 1) / PAGE;
        int64_t H = c.get("H", 1), G = c.get("G", H), D = c["D"];
        Tensor q = c.constant({N * queries, H, D}), k = c.constant({N * pages * PAGE, G, D}),
               v = c.constant({N * pages * PAGE, G, c.get("Dv", D)});
        Tensor table = c.integers(
            {N, pages}, [=](int64_t i) { return int32_t((N * pages - 1) - (i % pages * N + i / pages)); });
        Tensor starts = c.integers({N + 1}, [=](int64_t i) { return int32_t(i * queries); });
        Tensor lengths = c.integers({N}, [=](int64_t i) { return int32_t(S - i * (S - queries) / N); });
        AttentionOptions o{.window = c.get("window", 0), .softcap = double(c.get("softcap", 0))};
        Tensor sinks = c.get("sinks", 0) ? c.constant({H}) : Tensor{};
        return {attention_paged(q, k, v, table, starts, lengths, o, sinks)};
    },
    .cases = {"N=1 S=1 Q=1 D=4", "N=3 S=130 Q=2 H=6 G=2 D=20 Dv=16", "N=2 S=300 Q=70 H=2 D=64 window=100",
              "N=2 S=600 Q=3 H=8 G=2 D=64 sinks=1", "N=1 S=200 Q=5 D=192 Dv=128 softcap=3",
              "N=2 S=2200 Q=1 H=4 G=1 D=16 sinks=1", "N=2 S=520 Q=70 H=2 G=1 D=16 sinks=1",
              "N=1 S=70 Q=2 D=256 H=2", "bench N=1 S=512 Q=1 H=9 G=3 D=64", "bench N=1 S=4096 Q=1 H=12 D=64",
              "bench N=8 S=1024 Q=1 H=16 G=8 D=128", "bench N=1 S=1024 Q=512 H=9 G=3 D=64"},
    .gradients = false,
}};

static RegisterOp append_op{{
    .name = "kv_append",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        int64_t rows = c["rows"], count = c["T"];
        Tensor cache = c.constant({rows, c["G"], c["D"]}), x = c.constant({T, c["G"], c["D"]});
        Tensor slots =
            c.integers({T}, [=](int64_t t) { return int32_t(t < count ? (t * 7 + 3) % rows : -1); });
        return {kv_append(cache, x, slots)};
    },
    .cases = {"T=1 rows=1 G=1 D=3", "T=9 rows=40 G=3 D=20", "bench T=512 rows=4096 G=8 D=128"},
    .gradients = false,
}};

} // namespace nvl
