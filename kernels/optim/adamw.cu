#include "kernels/optim/adamw.h"

#include <algorithm>

#include "engine/device/cuda.h"
#include "kernels/tile/vec.cuh"

namespace nvl {

// The numbers of a step as the loop wants them, computed in f64 by one thread of each block: they live in
// device memory, so that a replayed graph sees the new ones.
struct Factors {
    float clip, keep, toward_g, beta2, toward_gg, size, inverse_root, eps;
    bool update;
};
__device__ double power(double base, long long n) {
    double p = 1;
    for (; n > 0; n >>= 1, base *= base)
        if (n & 1) p *= base;
    return p;
}
/// step: OptimStep's numbers in order.
__device__ Factors factors_of(const double* step, const double* clip) {
    double lr = step[0], weight_decay = step[1], beta1 = step[2], beta2 = step[3];
    long long n = __double2ll_rn(step[5]);
    return {float(clip[1]),
            float(1 - lr * weight_decay),
            float(1 - beta1),
            float(beta2),
            float(1 - beta2),
            float(lr / (1 - power(beta1, n))),
            float(1 / sqrt(1 - power(beta2, n))),
            float(step[4]),
            !isnan(clip[1])};
}

constexpr int ADAM_THREADS = 256, ADAM_N = 4;
struct AdamW {
    float *w, *m, *v, *max_v; // max_v: null without amsgrad
    __nv_bfloat16* copy;      // null if w is not a master
    const float* g;
    const double *step, *clip;
    int64_t n;
    bool vector;
};

template <int N> __device__ __forceinline__ void update(const AdamW& p, const Factors& f, int64_t at) {
    Floats<N> w = load<N>(p.w + at);
    if (f.update) {
        Floats<N> g = load<N>(p.g + at), m = load<N>(p.m + at), v = load<N>(p.v + at), under;
#pragma unroll
        for (int i = 0; i < N; i++) {
            float d = g[i] * f.clip;
            m[i] = fmaf(f.toward_g, d - m[i], m[i]);
            v[i] = fmaf(f.toward_gg, d * d, f.beta2 * v[i]);
        }
        under = v;
        if (p.max_v) {
            under = load<N>(p.max_v + at);
#pragma unroll
            for (int i = 0; i < N; i++) under[i] = v[i] > under[i] ? v[i] : under[i];
            put<N>(p.max_v + at, under, false);
        }
#pragma unroll
        for (int i = 0; i < N; i++)
            w[i] = fmaf(-f.size, m[i] / fmaf(sqrtf(under[i]), f.inverse_root, f.eps), w[i] * f.keep);
        put<N>(p.m + at, m, false), put<N>(p.v + at, v, false), put<N>(p.w + at, w, false);
    }
    if (p.copy) put<N>(p.copy + at, w, false);
}

static __global__ void __launch_bounds__(ADAM_THREADS) adamw_kernel(AdamW p) {
    __shared__ Factors shared;
    if (threadIdx.x == 0) shared = factors_of(p.step, p.clip);
    __syncthreads();
    const Factors f = shared;
    const int64_t threads = int64_t(gridDim.x) * ADAM_THREADS,
                  first = int64_t(blockIdx.x) * ADAM_THREADS + threadIdx.x;
    if (!p.vector) {
        for (int64_t i = first; i < p.n; i += threads) update<1>(p, f, i);
        return;
    }
    for (int64_t i = first; i < p.n / ADAM_N; i += threads) update<ADAM_N>(p, f, i * ADAM_N);
    if (int64_t i = p.n / ADAM_N * ADAM_N + first; i < p.n) update<1>(p, f, i);
}

static void run(const View& w, const View& copy, const View& m, const View& v, const View& max_v,
                const View& g, const View& step, const View& clip) {
    const int64_t n = dense_count("adamw", w);
    for (const View* x : {&copy, &m, &v, &max_v, &g})
        check(!*x || dense_count("adamw", *x) == n, "adamw: %ld elements for a parameter of %ld",
              long(x->numel()), long(n));
    check(step.numel() == OPTIM_STEP && clip.numel() == 2,
          "adamw: the step has %ld numbers and the clip %ld; expected %ld and 2", long(step.numel()),
          long(clip.numel()), long(OPTIM_STEP));
    if (!n) return;
    auto aligned = [](const View& x) {
        return reinterpret_cast<uintptr_t>(x.data) % size_t(size_of(x.dtype) * ADAM_N) == 0;
    };
    AdamW p{pointer_of<float>(w),
            pointer_of<float>(m),
            pointer_of<float>(v),
            pointer_of<float>(max_v),
            pointer_of<__nv_bfloat16>(copy),
            pointer_of<const float>(g),
            pointer_of<const double>(step),
            pointer_of<const double>(clip),
            n,
            aligned(w) && aligned(m) && aligned(v) && aligned(max_v) && aligned(copy) && aligned(g)};
    int64_t blocks = ceil_div(n, ADAM_THREADS * ADAM_N);
    blocks = std::min<int64_t>(blocks, 8 * multiprocessors()); // few, since each computes the factors
    adamw_kernel<<<unsigned(blocks), ADAM_THREADS, 0, cuda_stream()>>>(p);
    check_launch("adamw");
}

static void plain(InOut w, InOut m, InOut v, In g, In step, In clip) { run(w, {}, m, v, {}, g, step, clip); }
static void amsgrad(InOut w, InOut m, InOut v, InOut max_v, In g, In step, In clip) {
    run(w, {}, m, v, max_v, g, step, clip);
}
static void master(InOut master, Out w, InOut m, InOut v, In g, In step, In clip) {
    run(master, w, m, v, {}, g, step, clip);
}
static void master_amsgrad(InOut master, Out w, InOut m, InOut v, InOut max_v, In g, In step, In clip) {
    run(master, w, m, v, max_v, g, step, clip);
}

static OnCuda plain_on_cuda{adamw_plain, plain};
static OnCuda amsgrad_on_cuda{adamw_amsgrad, amsgrad};
static OnCuda master_on_cuda{adamw_master, master};
static OnCuda master_amsgrad_on_cuda{adamw_master_amsgrad, master_amsgrad};

} // namespace nvl
