#include "kernels/embed/embedding.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/rows.h"
#include "kernels/embed/ids.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In table, In ids) {
    dispatch(table.dtype, [&]<class X> {
        for_rows(y, [&](int64_t t) {
            int64_t id = checked_id("embedding", ids, t, table.dim(0));
            std::copy_n(table.row<X>(id), y.cols(), y.row<X>(t));
        });
    });
}

namespace {
// Tokens ordered by id, then by place; group g is tokens [start[g], start[g + 1]) and belongs to row id[g].
struct Groups {
    std::vector<uint64_t> keys; // id << 32 | token
    std::vector<int64_t> start, id;
    int64_t token(int64_t k) const { return int64_t(uint32_t(keys[size_t(k)])); }
};

Groups group_by_id(const In& ids, int64_t V) {
    Groups g;
    for (int64_t t = 0; t < ids.dim(0); t++)
        g.keys.push_back(uint64_t(checked_id("embedding", ids, t, V)) << 32 | uint64_t(t));
    std::sort(g.keys.begin(), g.keys.end());
    for (size_t k = 0; k < g.keys.size(); k++) {
        int64_t id = int64_t(g.keys[k] >> 32);
        if (g.id.empty() || g.id.back() != id) g.id.push_back(id), g.start.push_back(int64_t(k));
    }
    g.start.push_back(int64_t(g.keys.size()));
    return g;
}
} // namespace

static void backward(AccSum dtable, In dy, In ids) {
    if (!dtable) return;
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t C = dy.cols(), V = dtable.dim(0);
        Groups groups = group_by_id(ids, V);
        auto add_group = [&](size_t g, A* sums) {
            std::fill_n(sums, C, A(0));
            for (int64_t k = groups.start[g]; k < groups.start[g + 1]; k++) {
                const X* d = dy.row<X>(groups.token(k));
                for (int64_t c = 0; c < C; c++) sums[c] += A(d[c]);
            }
            put_row(dtable, dtable.row<A>(groups.id[g]), C, [&](int64_t c) { return sums[c]; });
        };
        if (dtable.add) // only the rows that occur
            return parallel_for(int64_t(groups.id.size()), row_grain(C), [&](int64_t begin, int64_t end) {
                std::vector<A> sums(static_cast<size_t>(C));
                for (int64_t g = begin; g < end; g++) add_group(size_t(g), sums.data());
            });
        parallel_for(V, row_grain(C), [&](int64_t begin, int64_t end) {
            std::vector<A> sums(static_cast<size_t>(C));
            size_t g =
                size_t(std::lower_bound(groups.id.begin(), groups.id.end(), begin) - groups.id.begin());
            for (int64_t v = begin; v < end; v++)
                if (g < groups.id.size() && groups.id[g] == v)
                    add_group(g++, sums.data());
                else
                    std::fill_n(dtable.row<A>(v), C, A(0));
        });
    });
}

static double forward_moved(Out y, In table, In ids) { return 2.0 * double(y.bytes()) + double(ids.bytes()); }
static double backward_moved(AccSum dtable, In dy, In ids) {
    if (!dtable) return 0;
    double rows = double(std::min(dy.dim(0), dtable.dim(0)) * dy.cols() * size_of(dtable.dtype));
    return double(dy.bytes()) + double(ids.bytes()) + (dtable.add ? 2 * rows : double(dtable.bytes()));
}

constinit Kernel<void(Out, In, In)> embedding_forward{"embedding", forward, nullptr, {}, forward_moved};
constinit Kernel<void(AccSum, In, In)> embedding_backward{
    "embedding_backward", backward, nullptr, {}, backward_moved};

Tensor embedding(Tensor table, Tensor ids) {
    expect_table("embedding", table, ids);
    Tape& t = tape();
    Tensor y = t.tensor("embedding", {ids.dim(0), table.dim(1)}, table.dtype(),
                        join("embedding", Rule::nonlinear, {table, ids}));
    t.run(embedding_forward, y, table, ids);
    t.on_backward({y}, [=, &t] { t.run(embedding_backward, t.into(table), t.grad(y), ids); });
    return y;
}

static RegisterOp op{{
    .name = "embedding",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        int64_t V = c["V"];
        Tensor ids = c.integers({T}, [V](int64_t t) { return int32_t(t * t % V); });
        Tensor table = c.weight({V, c["C"]});
        if (!c.get("twice", 0)) return {embedding(table, ids)};
        Tensor first = embedding(table, ids), second = embedding(table, ids); // the gradient of one adds
        return {first, second};
    },
    .cases = {"T=1 V=1 C=1", "T=7 V=20 C=5", "T=129 V=11 C=33", "T=9 V=30 C=16 twice=1", "T=2100 V=1500 C=8",
              "T=40 V=3000 C=600 twice=1", "bench T=4096 V=50257 C=768"},
}};

} // namespace nvl
