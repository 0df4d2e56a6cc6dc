#include "kernels/pointwise/contiguous.h"

#include "kernels/tile/pointwise.cuh"

namespace nvl {

// Dense rows go through the elementwise launch. Else one side is dense in its last dimension and the other,
// if it was transposed, in some dimension before: tiles of 32 x 32 of these two pass through shared memory,
// so that both sides are moved a row of a tile at a time.

template <class X> struct Copy {
    Rows<X> to;
    Rows<const X> from;
    bool add;
    __device__ void operator()(const Part& p) const { put(to, p, get<VEC<X>>(from, p), add); }
};

constexpr int TILE = 32, TILE_ROWS = 8;
struct StridedAxis {
    int64_t extent = 1, to = 0, from = 0; // strides on both sides
};
template <class X> struct Transpose {
    X* to;
    const X* from;
    StridedAxis a, b;     // dense on the side that is read, on the side that is written
    StridedAxis outer[3]; // the rest
    int64_t a_tiles;      // along a
    bool add;
};
template <class X> __global__ void __launch_bounds__(TILE* TILE_ROWS) transpose_tiles(Transpose<X> p) {
    __shared__ float tile[TILE][TILE + 1];
    const int64_t a = blockIdx.x % p.a_tiles * TILE, b = blockIdx.x / p.a_tiles * TILE;
    int64_t batch = blockIdx.y + int64_t(blockIdx.z) * gridDim.y, to = 0, from = 0;
    if (batch >= p.outer[0].extent * p.outer[1].extent * p.outer[2].extent) return;
#pragma unroll
    for (const StridedAxis& axis : p.outer) {
        int64_t i = batch % axis.extent;
        batch /= axis.extent, to += i * axis.to, from += i * axis.from;
    }
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS)
        if (a + threadIdx.x < p.a.extent && b + i < p.b.extent)
            tile[i][threadIdx.x] = to_float(p.from[from + (a + threadIdx.x) * p.a.from + (b + i) * p.b.from]);
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS)
        if (b + threadIdx.x < p.b.extent && a + i < p.a.extent)
            put<1>(p.to + to + (a + i) * p.a.to + (b + threadIdx.x) * p.b.to, Floats<1>{tile[threadIdx.x][i]},
                   p.add);
}

/// The dimension that is dense in this view: the last one if it is, else any with stride 1.
static int dense_axis(const View& v) {
    for (int d = v.rank - 1; d >= 0; d--)
        if (v.stride[size_t(d)] == 1 && v.shape[size_t(d)] > 1) return d;
    return v.rank - 1;
}

template <class X> static void transpose(const char* op, const View& to, const View& from) {
    Transpose<X> p{pointer_of<X>(to), pointer_of<const X>(from), {}, {}, {}, 0, to.add};
    int a = dense_axis(from), b = dense_axis(to), used = 0;
    for (int d = 0; d < to.rank; d++) {
        StridedAxis axis{to.shape[size_t(d)], to.stride[size_t(d)], from.stride[size_t(d)]};
        if (d == b)
            p.b = axis;
        else if (d == a)
            p.a = axis;
        else if (axis.extent > 1) {
            check(used < 3, "%s: a view of rank %d; the CUDA kernel moves up to 5 dimensions", op, to.rank);
            p.outer[used++] = axis;
        }
    }
    p.a_tiles = ceil_div(p.a.extent, TILE);
    int64_t batch = p.outer[0].extent * p.outer[1].extent * p.outer[2].extent,
            y = std::min<int64_t>(batch, 65535);
    dim3 grid(unsigned(p.a_tiles * ceil_div(p.b.extent, TILE)), unsigned(y), unsigned(ceil_div(batch, y)));
    transpose_tiles<<<grid, dim3(TILE, TILE_ROWS), 0, cuda_stream()>>>(p);
    check_launch(op);
}

static bool dense_rows(const View& v) {
    return !v.rank || v.stride[size_t(v.rank - 1)] == 1 || v.cols() == 1;
}
static void copy(const char* op, const View& to, const View& from) {
    if (!to || to.numel() == 0) return;
    cuda_dispatch(to.dtype, [&]<class X> {
        if (!dense_rows(to) || !dense_rows(from) || !has_rows(to) || !has_rows(from))
            return transpose<X>(op, to, from);
        Copy<X> body{rows_of<X>(to), rows_of<const X>(from), to.add};
        launch_pointwise<VEC<X>>(op, body, to, to, from);
    });
}
static void forward(Out y, In x) { copy("contiguous", y, x); }
static void backward(Acc dx, In dy) { copy("contiguous_backward", dx, dy); }

static OnCuda on_cuda{contiguous_forward, forward};
static OnCuda backward_on_cuda{contiguous_backward, backward};

} // namespace nvl
