#include "kernels/optim/global_norm.h"

#include "engine/device/cuda.h"
#include "kernels/optim/step.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

// Sums in f64, over blocks of fixed size and then over the blocks.
constexpr int64_t SQUARES_BLOCK = 16384;
constexpr int SQUARES_THREADS = 256, TOTAL_THREADS = 1024;

template <class X> static __global__ void __launch_bounds__(SQUARES_THREADS)
    squares(double* to, const X* x, int64_t n, bool vector) {
    constexpr int N = VEC<X>;
    __shared__ double scratch[SQUARES_THREADS / WARP];
    const int64_t begin = blockIdx.x * SQUARES_BLOCK;
    const int count = int(min(n - begin, SQUARES_BLOCK));
    double sum = 0;
#pragma unroll 4
    for (int i = int(threadIdx.x) * N; i < count; i += SQUARES_THREADS * N) {
        Floats<N> v = floats(load_part<N>(x + begin, i, count, vector && i + N <= count));
#pragma unroll
        for (int j = 0; j < N; j++) sum = fma(double(v[j]), double(v[j]), sum);
    }
    sum = block_sum<SQUARES_THREADS>(sum, scratch);
    if (threadIdx.x == 0) to[blockIdx.x] = sum;
}
/// to = the sum of all parts, or, with `max_norm` >= 0, the norm and the scale that clips it.
static __global__ void __launch_bounds__(TOTAL_THREADS)
    total(double* to, const double* parts, int64_t n, double max_norm) {
    __shared__ double scratch[TOTAL_THREADS / WARP];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += TOTAL_THREADS) sum += parts[i];
    sum = block_sum<TOTAL_THREADS>(sum, scratch);
    if (threadIdx.x) return;
    if (max_norm < 0) {
        to[0] = sum;
        return;
    }
    double norm = sqrt(sum), scale = max_norm > 0 ? fmin(1.0, max_norm / (norm + 1e-6)) : 1;
    to[0] = norm;
    to[1] = isfinite(norm) ? scale : NAN;
}

static int64_t blocks_of(const View& g) { return ceil_div(g.numel(), SQUARES_BLOCK); }
static int64_t square_sum_workspace(Out, In g) { return blocks_of(g) * int64_t(sizeof(double)); }
static void square_sum_cuda(Out square, In g) {
    const int64_t n = dense_count("global_norm", g), blocks = blocks_of(g);
    double *to = pointer_of<double>(square), *parts = blocks == 1 ? to : cuda_workspace_of<double>(blocks);
    cuda_dispatch(g.dtype, [&]<class X> {
        if (!blocks) return;
        bool vector = reinterpret_cast<uintptr_t>(g.data) % 16 == 0;
        squares<<<unsigned(blocks), SQUARES_THREADS, 0, cuda_stream()>>>(parts, pointer_of<const X>(g), n,
                                                                         vector);
        check_launch("global_norm");
    });
    if (blocks == 1) return;
    total<<<1, TOTAL_THREADS, 0, cuda_stream()>>>(to, parts, blocks, -1);
    check_launch("global_norm: total");
}
static void clip_scale_cuda(Out clip, In squares, double max_norm) {
    total<<<1, TOTAL_THREADS, 0, cuda_stream()>>>(pointer_of<double>(clip), pointer_of<const double>(squares),
                                                  dense_count("global_norm", squares), max_norm);
    check_launch("clip_scale");
}

static OnCuda square_sum_on_cuda{square_sum, square_sum_cuda, square_sum_workspace};
static OnCuda clip_scale_on_cuda{clip_scale, clip_scale_cuda};

} // namespace nvl
