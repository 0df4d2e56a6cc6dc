#include "kernels/position/rope.h"

#include "engine/device/cuda.h"
#include "kernels/position/heads.cuh"

namespace nvl {

// The same polynomials as on the CPU (kernels/cpu/math.h): 1e-15 for |x| < 1e6, without the table that the
// CUDA library's reduction keeps in local memory.
__device__ __forceinline__ void sine_cosine(double x, double& sine, double& cosine) {
    double shifted = fma(x, 0.63661977236758134308, 6755399441055744.0), n = shifted - 6755399441055744.0;
    double r = fma(n, -1.57079632679489655800, x);
    r = fma(n, -6.12323399573676603587e-17, r);
    long long quadrant = __double_as_longlong(shifted);
    double t = r * r;
    double s = fma(1.58947105824689993e-10, t, -2.50507345710847013e-8);
    s = fma(s, t, 2.75573136518532838e-6);
    s = fma(s, t, -0.000198412698301443944);
    s = fma(s, t, 0.00833333333332366217);
    s = fma(s, t, -0.166666666666666421);
    s = fma(s * t, r, r);
    double c = fma(-1.13679818804727128e-11, t, 2.08758977386829159e-9);
    c = fma(c, t, -2.75573157386132763e-7);
    c = fma(c, t, 2.48015872946280054e-5);
    c = fma(c, t, -0.00138888888888828391);
    c = fma(c, t, 0.0416666666666666513);
    c = fma(c * t, t, fma(t, -0.5, 1.0));
    double even = quadrant & 1 ? c : s, odd = quadrant & 1 ? s : c;
    sine = quadrant & 2 ? -even : even;
    cosine = (quadrant + 1) & 2 ? -odd : odd;
}

struct Frequencies {
    float inverse[RopeTable::MAX_PAIRS], scale;
    unsigned char stream[RopeTable::MAX_PAIRS];
    int pairs;
};
static __global__ void __launch_bounds__(256)
    angles_kernel(Rows<float> angles, const int* positions, int64_t token_step, int64_t stream_step,
                  const __grid_constant__ Frequencies f, int64_t tokens) {
    int64_t at = int64_t(blockIdx.x) * 256 + threadIdx.x, t = at / f.pairs;
    if (t >= tokens) return;
    int i = int(at - t * f.pairs);
    float angle = float(positions[t * token_step + f.stream[i] * stream_step]) * f.inverse[i];
    double s, c;
    sine_cosine(double(angle), s, c);
    float* row = angles(t);
    row[i] = float(c * double(f.scale));
    row[f.pairs + i] = float(s * double(f.scale));
}
static void angles_forward(Out angles, In positions, RopeTable table) {
    Frequencies f{.scale = table.scale, .pairs = int(table.pairs)};
    std::copy(table.inv_freq.begin(), table.inv_freq.end(), f.inverse);
    std::copy(table.stream.begin(), table.stream.end(), f.stream);
    int64_t tokens = angles.dim(0), blocks = ceil_div(tokens * table.pairs, 256);
    if (!blocks) return;
    angles_kernel<<<unsigned(blocks), 256, 0, cuda_stream()>>>(
        rows_of<float>(angles), pointer_of<const int>(positions), positions.stride[0],
        positions.rank == 2 ? positions.stride[1] : 0, f, tokens);
    check_launch("rope_angles");
}

template <class X> struct Rope {
    Rows<X> y;
    Rows<const X> x;
    Rows<const float> angles;
    int64_t rows; // heads of all tokens
    int H;
    bool add;
    HeadShape s;
};
template <class X, int GROUP, int K, int SIGN> __global__ void __launch_bounds__(HEAD_THREADS)
    rope_kernel(Rope<X> p) {
    const int64_t row = int64_t(blockIdx.x) * (HEAD_THREADS / GROUP) + threadIdx.x / GROUP;
    if (row >= p.rows) return;
    const HeadLane<GROUP> head{p.s, int(threadIdx.x % GROUP)};
    const float* angles = p.angles(unsigned(row) / unsigned(p.H));
#pragma unroll
    for (int k = 0; k < K; k++)
        head.store_pairs(p.y(row), k, turned<SIGN>(head.load_pairs(p.x(row), k), head.load_angles(angles, k)),
                         p.add);
}
template <int SIGN>
static void turn(const char* op, const View& y, const View& x, const View& angles, Pairs pairs) {
    if (!y || y.numel() == 0) return;
    cuda_dispatch(x.dtype, [&]<class X> {
        Rope<X> p{rows_of<X>(y),
                  rows_of<const X>(x),
                  rows_of<const float>(angles),
                  x.dim(0) * x.dim(1),
                  int(x.dim(1)),
                  y.add,
                  head_shape(x.dim(2), angles.cols(), pairs)};
        p.s.vector = heads_move(p.s, y, x, angles);
        with_head_group(p.s, [&]<int GROUP, int K> {
            unsigned blocks = unsigned(ceil_div(p.rows, HEAD_THREADS / GROUP));
            rope_kernel<X, GROUP, K, SIGN><<<blocks, HEAD_THREADS, 0, cuda_stream()>>>(p);
        });
        check_launch(op);
    });
}
static void forward(Out y, In x, In angles, Pairs pairs) { turn<1>("rope", y, x, angles, pairs); }
static void backward(Acc dx, In dy, In angles, Pairs pairs) {
    turn<-1>("rope_backward", dx, dy, angles, pairs);
}

static OnCuda angles_on_cuda{rope_angles_forward, angles_forward};
static OnCuda on_cuda{rope_forward, forward};
static OnCuda backward_on_cuda{rope_backward, backward};

} // namespace nvl
