#include "kernels/embed/embedding_add_positions.h"

#include "kernels/embed/ids.cuh"
#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X> struct GatherTwo {
    static constexpr int N = VEC<X>;
    Rows<X> y;
    Rows<const X> table, places;
    Ids ids, positions;
    __device__ void operator()(const Part& p) const {
        Part a = p, b = p;
        a.row = ids(p.row), b.row = positions(p.row);
        Floats<N> f = get<N>(table, a), g = get<N>(places, b);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] += g[i];
        put(y, p, f);
    }
};
static void forward(Out y, In table, In ids, In places, In positions) {
    cuda_dispatch(y.dtype, [&]<class X> {
        GatherTwo<X> body{rows_of<X>(y), rows_of<const X>(table), rows_of<const X>(places),
                          ids_of(ids, table.dim(0)), ids_of(positions, places.dim(0))};
        launch_by_row<VEC<X>>("embedding_add_positions", body, y, y, table, places);
    });
}

static OnCuda on_cuda{embedding_add_positions_forward, forward};

} // namespace nvl
