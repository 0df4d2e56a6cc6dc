#include "kernels/embed/embedding.h"

#include "kernels/embed/ids.cuh"
#include "kernels/embed/sort.cuh"
#include "kernels/tile/pointwise.cuh"

namespace nvl {

template <class X> struct Gather {
    Rows<X> y;
    Rows<const X> table;
    Ids ids;
    __device__ void operator()(const Part& p) const {
        Part from = p;
        from.row = ids(p.row);
        put(y, p, get<VEC<X>>(table, from));
    }
};
static void forward(Out y, In table, In ids) {
    cuda_dispatch(y.dtype, [&]<class X> {
        Gather<X> body{rows_of<X>(y), rows_of<const X>(table), ids_of(ids, table.dim(0))};
        launch_by_row<VEC<X>>("embedding", body, y, y, table);
    });
}

// The gradient: tokens sorted by id, then a warp for each row of the table (or, where it adds, for each id
// that occurs) sums its tokens in order, 512 channels at a time.
constexpr int SUM_WARPS = 8, SUM_COLUMNS = 512;

template <class X> struct SumRuns {
    Rows<float> table;
    Rows<const X> dy;
    SortedIds sorted;
    int64_t V;
    int T, C;
    bool vector;
};
template <class X, bool ADD> __global__ void __launch_bounds__(SUM_WARPS* WARP) sum_runs(SumRuns<X> p) {
    constexpr int N = 4;
    const int64_t unit = int64_t(blockIdx.x) * SUM_WARPS + threadIdx.x / WARP;
    int64_t v = unit;
    if constexpr (ADD) { // of the sorted tokens: the first of each id works
        if (unit >= p.T) return;
        v = p.sorted.ids[unit];
        if (unit && p.sorted.ids[unit - 1] == v) return;
    } else if (unit >= p.V)
        return;
    const int2 run = p.sorted.runs[v];
    const int end_column = min(p.C, int(blockIdx.y + 1) * SUM_COLUMNS);
    for (int c = int(blockIdx.y) * SUM_COLUMNS + int(threadIdx.x % WARP) * N; c < end_column; c += WARP * N) {
        Floats<N> sum{};
#pragma unroll 4
        for (int k = run.x; k < run.y; k++) {
            Floats<N> d = floats(load_part<N>(p.dy(p.sorted.tokens[k]), c, p.C, p.vector));
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += d[i];
        }
        put_part(p.table(v), c, p.C, sum, p.vector, ADD);
    }
}

static void backward(AccSum dtable, In dy, In ids) {
    if (!dtable) return;
    const int64_t T = dy.dim(0), V = dtable.dim(0), C = dy.cols();
    SortedIds sorted = sort_ids(ids_of(ids, V), T, V);
    cuda_dispatch(dy.dtype, [&]<class X> {
        SumRuns<X> p{rows_of<float>(dtable),    rows_of<const X>(dy), sorted, V, int(T), int(C),
                     all_move_by(4, dtable, dy)};
        dim3 grid(unsigned(ceil_div(dtable.add ? T : V, SUM_WARPS)), unsigned(ceil_div(C, SUM_COLUMNS)));
        if (!grid.x || !grid.y) return;
        if (dtable.add)
            sum_runs<X, true><<<grid, SUM_WARPS * WARP, 0, cuda_stream()>>>(p);
        else
            sum_runs<X, false><<<grid, SUM_WARPS * WARP, 0, cuda_stream()>>>(p);
        check_launch("embedding_backward");
    });
}
static int64_t workspace(AccSum dtable, In dy, In) {
    return dtable ? sort_workspace(dy.dim(0), dtable.dim(0)) : 0;
}

static OnCuda on_cuda{embedding_forward, forward};
static OnCuda backward_on_cuda{embedding_backward, backward, workspace};

} // namespace nvl
