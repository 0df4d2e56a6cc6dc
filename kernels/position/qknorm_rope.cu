#include "kernels/position/qknorm_rope.h"

#include <algorithm>

#include "engine/device/cuda.h"
#include "kernels/position/heads.cuh"
#include "kernels/tile/columns.cuh"

namespace nvl {

// A group of threads works on consecutive heads and keeps the weight, and the angles while the token stays.
template <class X> struct QkNorm {
    Rows<X> to; // y, or dx (may be empty)
    Rows<float> r;
    Rows<const X> x, dy;
    const X* w;
    Rows<const float> angles;
    float* partials; // (blocks, D) sums for dw; null: not wanted
    int64_t rows;    // heads of all tokens
    int per_group, H;
    float eps, offset;
    bool add;
    HeadShape s;
};

template <class X, int GROUP, int K> __global__ void __launch_bounds__(HEAD_THREADS)
    qknorm_forward(QkNorm<X> p) {
    const HeadLane<GROUP> head{p.s, int(threadIdx.x % GROUP)};
    const int64_t begin = (int64_t(blockIdx.x) * (HEAD_THREADS / GROUP) + threadIdx.x / GROUP) * p.per_group;
    PairValues w[K], angles[K];
#pragma unroll
    for (int k = 0; k < K; k++) w[k] = head.load_pairs(p.w, k);
    int64_t token = -1;
    for (int64_t row = begin; row < begin + p.per_group; row++) {
        const bool inside = row < p.rows; // all lanes of a warp stay for the sum
        PairValues v[K]{};
        float sum = 0;
        if (inside) {
            int64_t t = unsigned(row) / unsigned(p.H);
#pragma unroll
            for (int k = 0; k < K; k++) {
                v[k] = head.load_pairs(p.x(row), k);
                if (t != token) angles[k] = head.load_angles(p.angles(t), k);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum = fmaf(v[k].a[j], v[k].a[j], sum), sum = fmaf(v[k].b[j], v[k].b[j], sum);
            }
            token = t;
        }
        const float r = 1 / sqrtf(warp_sum<GROUP>(sum) / float(p.s.D) + p.eps);
        if (!inside) continue;
        if (head.lane == 0) *p.r(row) = r;
#pragma unroll
        for (int k = 0; k < K; k++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                v[k].a[j] = v[k].a[j] * r * (p.offset + w[k].a[j]);
                v[k].b[j] = v[k].b[j] * r * (p.offset + w[k].b[j]);
            }
            head.store_pairs(p.to(row), k, turned<1>(v[k], angles[k]), false);
        }
    }
}

// Where a thread leaves the sum of element `part` (0: a, 1: b) of its pair (k, j): apart by banks for lanes
// that write and for threads that then read neighbouring columns.
template <int GROUP> __device__ __forceinline__ int sum_slot(int k, int j, int part, int lane) {
    return (2 * (4 * k + j) + part) * (GROUP + 4) + lane;
}
template <int GROUP> __device__ __forceinline__ int slot_of_column(const HeadShape& s, int c) {
    int i, part;
    if (s.interleaved)
        i = c / 2, part = c % 2;
    else if (c < 2 * s.half)
        part = c >= s.half, i = c - part * s.half;
    else
        part = c - 2 * s.half >= s.rest, i = c - s.half - part * s.rest;
    int k = i / (4 * GROUP), in = i % (4 * GROUP);
    return s.interleaved ? sum_slot<GROUP>(k, in / GROUP, part, in % GROUP)
                         : sum_slot<GROUP>(k, in % 4, part, in / 4);
}

template <class X, int GROUP, int K> __global__ void __launch_bounds__(HEAD_THREADS)
    qknorm_backward(QkNorm<X> p) {
    constexpr int GROUPS = HEAD_THREADS / GROUP, SIZE = 8 * K * (GROUP + 4) + GROUP;
    const int group = threadIdx.x / GROUP;
    const HeadLane<GROUP> head{p.s, int(threadIdx.x % GROUP)};
    const int64_t begin = (int64_t(blockIdx.x) * GROUPS + group) * p.per_group;
    PairValues w[K], angles[K], dw[K]{};
#pragma unroll
    for (int k = 0; k < K; k++) w[k] = head.load_pairs(p.w, k);
    int64_t token = -1;
    for (int64_t row = begin; row < begin + p.per_group; row++) {
        const bool inside = row < p.rows;
        PairValues x[K]{}, g[K]{};
        float sum = 0, r = 0;
        if (inside) {
            r = *p.r(row);
            int64_t t = unsigned(row) / unsigned(p.H);
#pragma unroll
            for (int k = 0; k < K; k++) {
                x[k] = head.load_pairs(p.x(row), k);
                if (t != token) angles[k] = head.load_angles(p.angles(t), k);
                g[k] = turned<-1>(head.load_pairs(p.dy(row), k), angles[k]);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    dw[k].a[j] = fmaf(g[k].a[j], x[k].a[j] * r, dw[k].a[j]);
                    dw[k].b[j] = fmaf(g[k].b[j], x[k].b[j] * r, dw[k].b[j]);
                    g[k].a[j] *= p.offset + w[k].a[j], g[k].b[j] *= p.offset + w[k].b[j];
                    sum = fmaf(g[k].a[j], x[k].a[j], sum), sum = fmaf(g[k].b[j], x[k].b[j], sum);
                }
            }
            token = t;
        }
        const float factor = r * r * warp_sum<GROUP>(sum) / float(p.s.D);
        if (!inside || !p.to) continue;
#pragma unroll
        for (int k = 0; k < K; k++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                g[k].a[j] = r * fmaf(-x[k].a[j], factor, g[k].a[j]);
                g[k].b[j] = r * fmaf(-x[k].b[j], factor, g[k].b[j]);
            }
            head.store_pairs(p.to(row), k, g[k], p.add);
        }
    }
    if (!p.partials) return;
    __shared__ float shared[GROUPS * SIZE];
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            shared[group * SIZE + sum_slot<GROUP>(k, j, 0, head.lane)] = dw[k].a[j];
            shared[group * SIZE + sum_slot<GROUP>(k, j, 1, head.lane)] = dw[k].b[j];
        }
    __syncthreads();
    for (int c = threadIdx.x; c < p.s.D; c += HEAD_THREADS) {
        int slot = slot_of_column<GROUP>(p.s, c);
        float sum = 0;
#pragma unroll
        for (int g = 0; g < GROUPS; g++) sum += shared[g * SIZE + slot];
        p.partials[int64_t(blockIdx.x) * p.s.D + c] = sum;
    }
}

template <class X> static QkNorm<X> arguments(const View& to, const View& x, const View& dy, const View& w,
                                              const View& r, const View& angles, double offset, Pairs pairs) {
    QkNorm<X> p{.to = rows_of<X>(to),
                .r = rows_of<float>(r),
                .x = rows_of<const X>(x),
                .dy = rows_of<const X>(dy),
                .w = pointer_of<const X>(w),
                .angles = rows_of<const float>(angles),
                .rows = x.dim(0) * x.dim(1),
                .H = int(x.dim(1)),
                .offset = float(offset),
                .add = to.add,
                .s = head_shape(x.dim(2), angles.cols(), pairs)};
    p.s.vector = heads_move(p.s, to, x, dy, w, angles);
    return p;
}

static void forward(Out y, Out r, In x, In w, In angles, double eps, double offset, Pairs pairs) {
    if (y.numel() == 0) return;
    cuda_dispatch(x.dtype, [&]<class X> {
        auto p = arguments<X>(y, x, {}, w, r, angles, offset, pairs);
        p.eps = float(eps);
        with_head_group(p.s, [&]<int GROUP, int K> {
            constexpr int GROUPS = HEAD_THREADS / GROUP;
            p.per_group = p.rows >= 8 * GROUPS * int64_t(multiprocessors()) ? 4 : 1; // few rows: spread them
            unsigned blocks = unsigned(ceil_div(p.rows, GROUPS * p.per_group));
            qknorm_forward<X, GROUP, K><<<blocks, HEAD_THREADS, 0, cuda_stream()>>>(p);
        });
        check_launch("qknorm_rope");
    });
}

// A function of the rows alone, so bits do not depend on the device; 64 and more rows each.
static int64_t backward_blocks(const View& x) {
    return std::clamp<int64_t>(ceil_div(x.dim(0) * x.dim(1), 64), 1, 1024);
}
static void backward(Acc dx, AccSum dw, In dy, In x, In w, In r, In angles, double offset, Pairs pairs) {
    const int64_t blocks = backward_blocks(x), D = x.dim(2);
    float* partials = dw ? cuda_workspace_of<float>(blocks * D) : nullptr;
    cuda_dispatch(x.dtype, [&]<class X> {
        auto p = arguments<X>(dx, x, dy, w, r, angles, offset, pairs);
        p.partials = partials;
        with_head_group(p.s, [&]<int GROUP, int K> {
            p.per_group = int(ceil_div(p.rows, blocks * (HEAD_THREADS / GROUP)));
            qknorm_backward<X, GROUP, K><<<unsigned(blocks), HEAD_THREADS, 0, cuda_stream()>>>(p);
        });
        check_launch("qknorm_rope_backward");
    });
    if (dw) add_columns("qknorm_rope_backward", dw, partials, blocks, D);
}
static int64_t workspace(Acc, AccSum dw, In, In x, In, In, In, double, Pairs) {
    return dw ? backward_blocks(x) * x.dim(2) * int64_t(sizeof(float)) : 0;
}

static OnCuda on_cuda{qknorm_rope_forward, forward};
static OnCuda backward_on_cuda{qknorm_rope_backward, backward, workspace};

} // namespace nvl
