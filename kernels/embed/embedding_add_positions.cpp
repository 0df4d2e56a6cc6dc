#include "kernels/embed/embedding_add_positions.h"

#include "kernels/cpu/rows.h"
#include "kernels/embed/embedding.h"
#include "kernels/embed/ids.h"
#include "kernels/pointwise/add.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void forward(Out y, In table, In ids, In places, In positions) {
    dispatch(table.dtype, [&]<class X> {
        using A = sum_t<X>;
        int64_t n = y.cols();
        for_rows(y, [&](int64_t t) {
            const X* a = table.row<X>(checked_id("embedding", ids, t, table.dim(0)));
            const X* b = places.row<X>(checked_id("position embedding", positions, t, places.dim(0)));
            X* to = y.row<X>(t);
            for (int64_t c = 0; c < n; c++) to[c] = X(A(a[c]) + A(b[c]));
        });
    });
}
static double moved(Out y, In table, In ids, In places, In positions) {
    return 3.0 * double(y.bytes()) + double(ids.bytes()) + double(positions.bytes());
}

constinit Kernel<void(Out, In, In, In, In)> embedding_add_positions_forward{
    "embedding_add_positions", forward, nullptr, {}, moved};

Tensor embedding_add_positions(Tensor table, Tensor ids, Tensor places, Tensor positions) {
    const char* name = "embedding_add_positions";
    expect_table(name, table, ids);
    expect_table(name, places, positions);
    check(table.dim(1) == places.dim(1) && ids.shape() == positions.shape(),
          "%s: %s %s and %s %s; expected equal channels and one position per id", name, table.name(),
          table.shape().text().c_str(), places.name(), places.shape().text().c_str());
    Tape& t = tape();
    Tensor y = t.tensor(name, {ids.dim(0), table.dim(1)}, table.dtype(),
                        join(name, Rule::nonlinear, {table, ids, places, positions}));
    t.run(embedding_add_positions_forward, y, table, ids, places, positions);
    t.on_backward({y}, [=, &t] {
        t.run(embedding_backward, t.into(table), t.grad(y), ids);
        t.run(embedding_backward, t.into(places), t.grad(y), positions);
    });
    return y;
}

static Tensor composition(Tensor table, Tensor ids, Tensor places, Tensor positions) {
    Tensor a = embedding(table, ids), b = embedding(places, positions);
    return add(a, b);
}
template <auto F> static std::vector<Tensor> build(Case& c) {
    Dim T = c.rows("T");
    int64_t V = c["V"], S = c["S"];
    Tensor ids = c.integers({T}, [V](int64_t t) { return int32_t(t * t % V); });
    Tensor positions = c.integers({T}, [S](int64_t t) { return int32_t(t % S); });
    Tensor table = c.weight({V, c["C"]}), places = c.weight({S, c["C"]});
    return {F(table, ids, places, positions)};
}
static RegisterOp op{{
    .name = "embedding_add_positions",
    .build = build<embedding_add_positions>,
    .reference = build<composition>,
    .cases = {"T=1 V=1 S=1 C=1", "T=35 V=20 S=8 C=21", "bench T=4096 V=50257 S=1024 C=768"},
}};

} // namespace nvl
