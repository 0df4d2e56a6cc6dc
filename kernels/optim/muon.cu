// Muon on the GPU. The norm is summed in double over fixed blocks, which one block of threads adds in order;
// the products are those of cuda_gemm(), so equal rows give equal bits and A = X X^T comes out symmetric by
// itself.
#include "kernels/optim/muon.h"

#include "engine/device/cuda.h"
#include "kernels/linear/gemm_cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

constexpr int THREADS = 256;
constexpr int64_t NORM_BLOCK = 16384; // elements

/// body(i) for i in [0, n), one thread each: the arrays are dense, neighbours lie in one access of a warp.
template <class Body> __global__ void __launch_bounds__(THREADS) each_kernel(Body body, int64_t n) {
    int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (i < n) body(i);
}
template <class Body> void each(const char* kernel, int64_t n, Body body) {
    if (!n) return;
    each_kernel<<<unsigned(ceil_div(n, THREADS)), THREADS, 0, cuda_stream()>>>(body, n);
    check_launch(kernel);
}

__global__ void __launch_bounds__(THREADS) squares_kernel(double* partial, const float* x, int64_t n) {
    __shared__ double scratch[THREADS / WARP];
    int64_t from = int64_t(blockIdx.x) * NORM_BLOCK, to = min(n, from + NORM_BLOCK);
    double sum = 0;
    for (int64_t i = from + threadIdx.x; i < to; i += THREADS) sum += double(x[i]) * double(x[i]);
    sum = block_sum<THREADS>(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
__global__ void __launch_bounds__(THREADS)
    norm_scale_kernel(double* scale, const double* partial, int64_t blocks, double eps) {
    __shared__ double scratch[THREADS / WARP];
    double sum = 0;
    for (int64_t b = threadIdx.x; b < blocks; b += THREADS) sum += partial[b];
    sum = block_sum<THREADS>(sum, scratch);
    if (threadIdx.x == 0) *scale = 1 / fmax(sqrt(sum), eps);
}

int64_t norm_blocks(const View& x) { return ceil_div(x.numel(), NORM_BLOCK); }
int64_t newton_schulz_workspace(InOut x, Out, Out, Out, Out, MuonOptions) {
    return (norm_blocks(x) + 1) * int64_t(sizeof(double));
}
/// In the workspace: 1 / max(|x|_F, eps).
const double* norm_scale(const View& x, double eps) {
    int64_t blocks = norm_blocks(x);
    double* scale = cuda_workspace_of<double>(blocks + 1);
    if (blocks)
        squares_kernel<<<unsigned(blocks), THREADS, 0, cuda_stream()>>>(scale + 1, pointer_of<const float>(x),
                                                                        x.numel());
    check_launch("newton_schulz: squares");
    norm_scale_kernel<<<1, THREADS, 0, cuda_stream()>>>(scale, scale + 1, blocks, eps);
    check_launch("newton_schulz: norm");
    return scale;
}

template <class P> struct Normalise {
    float* x;
    P* low;
    const double* scale;
    __device__ void operator()(int64_t i) const {
        low[i] = from_float<P>(x[i] * float(*scale));
        x[i] = to_float(low[i]);
    }
};
template <class P> struct Polynomial {
    P* poly;
    const P* gram;
    const float* square;
    float b, c;
    __device__ void operator()(int64_t i) const {
        poly[i] = from_float<P>(__fmaf_rn(c, square[i], b * to_float(gram[i])));
    }
};
template <class P> struct Lower {
    P* low;
    const float* x;
    __device__ void operator()(int64_t i) const { low[i] = from_float<P>(x[i]); }
};

template <class P> void iterate(const View& x, const View& low, const View& gram, const View& square,
                                const View& poly, const MuonOptions& o) {
    int64_t n = x.numel();
    float* px = pointer_of<float>(x);
    P* pl = pointer_of<P>(low);
    Matrix X = matrix(x), L = matrix(low);
    if (x.dim(0) > x.dim(1)) X = X.t(), L = L.t();
    each("newton_schulz: normalise", n, Normalise<P>{px, pl, norm_scale(x, o.norm_eps)});
    for (int k = 0; k < o.iterations; k++) {
        cuda_product(matrix(gram), L, L.t(), {}, {.symmetric = true});
        cuda_product(matrix(square), matrix(gram), matrix(gram).t(), {}, {.symmetric = true});
        each("newton_schulz: polynomial", gram.numel(),
             Polynomial<P>{pointer_of<P>(poly), pointer_of<const P>(gram), pointer_of<const float>(square),
                           float(o.b), float(o.c)});
        cuda_product(X, matrix(poly), L, {.add = true}, {.keep = float(o.a)});
        each("newton_schulz: round", n, Lower<P>{pl, px});
    }
}
void newton_schulz_cuda(InOut x, Out low, Out gram, Out square, Out poly, MuonOptions o) {
    dense_count("newton_schulz", x);
    cuda_dispatch(low.dtype, [&]<class P> { iterate<P>(x, low, gram, square, poly, o); });
}

/// clip = (norm, scale): a scale that is NaN says that nothing is updated.
struct Momentum {
    float *m, *u;
    const float* g;
    const double *step, *clip;
    bool nesterov;
    __device__ void operator()(int64_t i) const {
        float momentum = float(step[2]), toward = float(1 - step[2]), by = float(clip[1]);
        float d = g[i] * by, before = m[i], v = __fmaf_rn(toward, d - before, before);
        if (!isnan(clip[1])) m[i] = v;
        u[i] = nesterov ? __fmaf_rn(momentum, v - d, d) : v;
    }
};
const double* step_numbers(const View& step) {
    check(step.numel() == OPTIM_STEP, "muon: the step tensor has %ld numbers, expected %ld",
          long(step.numel()), long(OPTIM_STEP));
    return pointer_of<const double>(step);
}
const double* clip_numbers(const View& clip) {
    check(clip.numel() == 2, "muon: the clip tensor has %ld numbers, expected norm and scale",
          long(clip.numel()));
    return pointer_of<const double>(clip);
}
void momentum_cuda(InOut m, Out u, In g, In step, In clip, bool nesterov) {
    int64_t n = dense_count("muon", m);
    check(dense_count("muon", g) == n, "muon: the gradient has %ld elements, expected %ld", long(g.numel()),
          long(n));
    each("muon_momentum", n,
         Momentum{pointer_of<float>(m), pointer_of<float>(u), pointer_of<const float>(g), step_numbers(step),
                  clip_numbers(clip), nesterov});
}

/// w = keep w - size u; `copy` (may be null) receives w rounded.
struct Apply {
    float* w;
    __nv_bfloat16* copy;
    const float* u;
    const double *step, *clip;
    double factor;
    __device__ void operator()(int64_t i) const {
        float keep = float(1 - step[0] * step[1]), size = float(step[0] * factor), v = w[i];
        if (!isnan(clip[1])) w[i] = v = __fmaf_rn(-size, u[i], __fmul_rn(keep, v));
        if (copy) copy[i] = from_float<__nv_bfloat16>(v);
    }
};
void apply(const View& w, const View& rounded, const View& u, const View& step, const View& clip,
           MuonAdjust adjust) {
    double rows = double(w.dim(0)), cols = double(w.dim(1));
    double factor = adjust == MuonAdjust::original ? std::sqrt(std::max(1.0, rows / cols))
                                                   : 0.2 * std::sqrt(std::max(rows, cols));
    each("muon_apply", dense_count("muon", w),
         Apply{pointer_of<float>(w), pointer_of<__nv_bfloat16>(rounded), pointer_of<const float>(u),
               step_numbers(step), clip_numbers(clip), factor});
}
void apply_cuda(InOut w, In u, In step, In clip, MuonAdjust adjust) { apply(w, {}, u, step, clip, adjust); }
void apply_master_cuda(InOut master, Out w, In u, In step, In clip, MuonAdjust adjust) {
    check(dense_count("muon", w) == master.numel(), "muon: the master has another size");
    apply(master, w, u, step, clip, adjust);
}

OnCuda on_newton_schulz{newton_schulz_kernel, newton_schulz_cuda, newton_schulz_workspace};
OnCuda on_momentum{muon_momentum, momentum_cuda};
OnCuda on_apply{muon_apply, apply_cuda};
OnCuda on_apply_master{muon_apply_master, apply_master_cuda};

} // namespace

} // namespace nvl
