// route on the GPU: a warp for each token, scores and ranks in shared memory.
#include "kernels/moe/router.h"

#include "engine/device/cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/types.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

constexpr int WARPS = 4;

/// The scores of one row into `score`; returns nothing else: l is computed again where its slope is needed.
template <class X>
__device__ __forceinline__ void read_scores(const X* x, float* score, int E, const RouterOptions& o) {
    int lane = int(threadIdx.x) % WARP;
    float cap = float(o.softcap), most = -INFINITY, sum = 0;
    for (int e = lane; e < E; e += WARP) {
        float l = to_float(x[e]);
        score[e] = l = cap != 0 ? cap * tanhf(l / cap) : l;
        most = fmaxf(most, l);
    }
    if (o.score == Score::sigmoid) {
        for (int e = lane; e < E; e += WARP) score[e] = 1 / (1 + expf(-score[e]));
        return __syncwarp();
    }
    most = warp_max(most);
    for (int e = lane; e < E; e += WARP) sum += score[e] = expf(score[e] - most);
    sum = warp_sum(sum);
    for (int e = lane; e < E; e += WARP) score[e] /= sum;
    __syncwarp();
}

/// Experts of all but the best groups rank last.
__device__ __forceinline__ void drop_groups(float* rank, float* worth, int E, const RouterOptions& o) {
    int lane = int(threadIdx.x) % WARP, G = int(o.groups), size = E / G;
    for (int g = lane; g < G; g += WARP) {
        float first = -INFINITY, second = -INFINITY;
        for (int e = g * size; e < (g + 1) * size; e++) {
            float r = rank[e];
            if (r > first)
                second = first, first = r;
            else
                second = fmaxf(second, r);
        }
        worth[g] = o.score == Score::softmax || size < 2 ? first : first + second;
    }
    __syncwarp();
    for (int g = lane; g < G; g += WARP) {
        int better = 0;
        for (int j = 0; j < G; j++) better += worth[j] > worth[g] || (worth[j] == worth[g] && j < g);
        for (int e = g * size; better >= int(o.top_groups) && e < (g + 1) * size; e++) rank[e] = -INFINITY;
    }
    __syncwarp();
}

/// The expert that ranks first; ties to the lower number. All lanes get it.
__device__ __forceinline__ int best_expert(const float* rank, int E) {
    int lane = int(threadIdx.x) % WARP, best = E - 1;
    float most = -INFINITY;
    for (int e = lane; e < E; e += WARP)
        if (rank[e] > most) most = rank[e], best = e;
#pragma unroll
    for (int apart = WARP / 2; apart; apart /= 2) {
        float r = __shfl_xor_sync(0xffffffffu, most, apart);
        int e = __shfl_xor_sync(0xffffffffu, best, apart);
        if (r > most || (r == most && e < best)) most = r, best = e;
    }
    return best;
}

template <class X, class B> __global__ void __launch_bounds__(WARPS* WARP)
    route_kernel(Rows<float> weight, Rows<int> choice, Rows<const X> x, const B* correction, int T, int E,
                 RouterOptions o) {
    extern __shared__ float shared[];
    int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    float *score = shared + warp * 3 * E, *rank = score + E, *worth = rank + E;
    int t = int(blockIdx.x) * WARPS + warp, K = int(o.top_k);
    if (t >= T) return;
    read_scores(x(t), score, E, o);
    for (int e = lane; e < E; e += WARP) rank[e] = score[e] + (correction ? to_float(correction[e]) : 0.f);
    __syncwarp();
    if (o.top_groups < o.groups) drop_groups(rank, worth, E, o);
    float sum = 0;
    for (int k = 0; k < K; k++) {
        int e = best_expert(rank, E);
        sum += score[e];
        __syncwarp();
        if (lane == 0) choice(t)[k] = e, worth[k] = score[e], rank[e] = -INFINITY;
        __syncwarp();
    }
    float by = float(o.scale) / (o.renormalise ? sum : 1.f);
    for (int k = lane; k < K; k += WARP) weight(t)[k] = worth[k] * by;
}

template <class X> __global__ void __launch_bounds__(WARPS* WARP)
    route_back_kernel(Rows<X> dx, Rows<const float> dweight, Rows<const X> x, Rows<const int> choice, int T,
                      int E, RouterOptions o, bool add) {
    extern __shared__ float shared[];
    int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    float *score = shared + warp * 2 * E, *d = score + E;
    int t = int(blockIdx.x) * WARPS + warp, K = int(o.top_k);
    if (t >= T) return;
    read_scores(x(t), score, E, o);
    for (int e = lane; e < E; e += WARP) d[e] = 0;
    __syncwarp();
    float sum = 0, mean = 0, scale = float(o.scale);
    for (int k = 0; k < K; k++) sum += score[choice(t)[k]];
    for (int k = 0; o.renormalise && k < K; k++) mean += scale * dweight(t)[k] * score[choice(t)[k]] / sum;
    for (int k = lane; k < K; k += WARP) {
        float g = scale * dweight(t)[k];
        d[choice(t)[k]] = o.renormalise ? (g - mean) / sum : g;
    }
    __syncwarp();
    float inner = 0;
    for (int e = lane; e < E; e += WARP) inner += score[e] * d[e];
    inner = warp_sum(inner);
    for (int e = lane; e < E; e += WARP) {
        float s = score[e], g = o.score == Score::softmax ? s * (d[e] - inner) : d[e] * s * (1 - s);
        float y = o.softcap ? tanhf(to_float(x(t)[e]) / float(o.softcap)) : 0.f;
        put<1>(dx(t) + e, Floats<1>{g * (1 - y * y)}, add);
    }
}

size_t room(const char* kernel, int64_t E, int arrays) {
    size_t bytes = size_t(WARPS * arrays * E) * sizeof(float);
    check(bytes <= 48 << 10, "%s: %ld experts need %zu bytes of shared memory; at most %d are supported",
          kernel, E, bytes, 48 << 10);
    return bytes;
}

void forward(Out weight, Out choice, In x, In correction, RouterOptions o, bool corrected) {
    int64_t T = x.rows(), E = x.cols();
    if (!T) return;
    size_t bytes = room("route", E, 3);
    unsigned blocks = unsigned(ceil_div(T, WARPS));
    cuda_dispatch(x.dtype, [&]<class X> {
        auto launch = [&]<class B>(const B* bias) {
            route_kernel<X, B><<<blocks, WARPS * WARP, bytes, cuda_stream()>>>(
                rows_of<float>(weight), rows_of<int>(choice), rows_of<const X>(x), bias, int(T), int(E), o);
        };
        if (corrected && correction.dtype != Dtype::f32)
            launch(pointer_of<const __nv_bfloat16>(correction));
        else
            launch(corrected ? pointer_of<const float>(correction) : nullptr);
    });
    check_launch("route");
}

void backward(Acc dx, In dweight, In x, In choice, RouterOptions o) {
    int64_t T = x.rows(), E = x.cols();
    if (!T || !dx) return;
    size_t bytes = room("route_backward", E, 2);
    cuda_dispatch(x.dtype, [&]<class X> {
        route_back_kernel<X><<<unsigned(ceil_div(T, WARPS)), WARPS * WARP, bytes, cuda_stream()>>>(
            rows_of<X>(dx), rows_of<const float>(dweight), rows_of<const X>(x), rows_of<const int>(choice),
            int(T), int(E), o, dx.add);
    });
    check_launch("route_backward");
}

OnCuda on_forward{route_forward, forward}, on_backward{route_backward, backward};

} // namespace

} // namespace nvl
