// Heads on the device, as pairs of elements that turn together: a group of threads holds a head, each thread
// four pairs (times K), so that a rotation needs no exchange.
//
// Pair i is (i, d/2 + i) or, interleaved, (2i, 2i + 1). Elements beyond d form pairs too, which do not turn.
// Which pairs a thread holds does not depend on alignment, so neither do the bits of sums over a head.
#pragma once
#include "kernels/position/rope.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

struct HeadShape {
    int D, half, rest, pairs; // pairs = half that turn + rest
    bool interleaved, vector;
};
inline HeadShape head_shape(int64_t D, int64_t d, Pairs pairs) {
    int h = int(d / 2), rest = int(D - d + 1) / 2;
    return {int(D), h, rest, h + rest, pairs == Pairs::interleaved, false};
}
/// Whether heads of all these views move several elements at a time: 4 of a half, or an interleaved pair.
template <class... V> bool heads_move(const HeadShape& s, const V&... views) {
    if (s.interleaved) return all_move_by(2, views...);
    return s.half % 4 == 0 && s.rest % 4 == 0 && 2 * s.pairs == s.D && all_move_by(4, views...);
}

struct PairValues {
    float a[4], b[4];
};

template <int GROUP> struct HeadLane {
    HeadShape s;
    int lane;
    __device__ __forceinline__ int pair(int k, int j) const {
        return s.interleaved ? (4 * k + j) * GROUP + lane : 4 * (k * GROUP + lane) + j;
    }
    __device__ __forceinline__ int first(int i) const {
        return s.interleaved ? 2 * i : i < s.half ? i : i + s.half;
    }
    __device__ __forceinline__ int second(int i) const {
        return s.interleaved ? 2 * i + 1 : first(i) + (i < s.half ? s.half : s.rest);
    }

    template <class X> __device__ __forceinline__ PairValues load_pairs(const X* head, int k) const {
        PairValues v{};
        if (s.vector && !s.interleaved) {
            int i = pair(k, 0);
            if (i >= s.pairs) return v;
            Floats<4> a = load<4>(head + first(i)), b = load<4>(head + second(i));
#pragma unroll
            for (int j = 0; j < 4; j++) v.a[j] = a[j], v.b[j] = b[j];
            return v;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int i = pair(k, j);
            if (i >= s.pairs) continue;
            if (s.vector) {
                Floats<2> p = load<2>(head + 2 * i);
                v.a[j] = p[0], v.b[j] = p[1];
            } else {
                v.a[j] = to_float(head[first(i)]);
                if (second(i) < s.D) v.b[j] = to_float(head[second(i)]);
            }
        }
        return v;
    }
    template <class X>
    __device__ __forceinline__ void store_pairs(X* head, int k, const PairValues& v, bool add) const {
        if (s.vector && !s.interleaved) {
            int i = pair(k, 0);
            if (i >= s.pairs) return;
            put<4>(head + first(i), Floats<4>{v.a[0], v.a[1], v.a[2], v.a[3]}, add);
            put<4>(head + second(i), Floats<4>{v.b[0], v.b[1], v.b[2], v.b[3]}, add);
            return;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int i = pair(k, j);
            if (i >= s.pairs) continue;
            if (s.vector)
                put<2>(head + 2 * i, Floats<2>{v.a[j], v.b[j]}, add);
            else {
                put<1>(head + first(i), Floats<1>{v.a[j]}, add);
                if (second(i) < s.D) put<1>(head + second(i), Floats<1>{v.b[j]}, add);
            }
        }
    }
    /// a: cosines, b: sines of a token's row of angles; 1 and 0 for pairs that do not turn.
    __device__ __forceinline__ PairValues load_angles(const float* row, int k) const {
        PairValues v{{1, 1, 1, 1}, {0, 0, 0, 0}};
        if (s.vector && !s.interleaved) {
            int i = pair(k, 0);
            if (i >= s.half) return v;
            Floats<4> a = load<4>(row + i), b = load<4>(row + s.half + i);
#pragma unroll
            for (int j = 0; j < 4; j++) v.a[j] = a[j], v.b[j] = b[j];
            return v;
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (int i = pair(k, j); i < s.half) v.a[j] = row[i], v.b[j] = row[s.half + i];
        return v;
    }
};

/// SIGN = -1 turns back.
template <int SIGN>
__device__ __forceinline__ PairValues turned(const PairValues& v, const PairValues& angle) {
    PairValues r;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float c = angle.a[j], s = SIGN * angle.b[j];
        r.a[j] = fmaf(v.a[j], c, -(v.b[j] * s));
        r.b[j] = fmaf(v.b[j], c, v.a[j] * s);
    }
    return r;
}

/// launch.operator()<GROUP, K>() with the smallest group that holds a head.
template <class F> void with_head_group(const HeadShape& s, F launch) {
    if (s.pairs <= 32)
        launch.template operator()<8, 1>();
    else if (s.pairs <= 64)
        launch.template operator()<16, 1>();
    else if (s.pairs <= 128)
        launch.template operator()<32, 1>();
    else if (s.pairs <= 512)
        launch.template operator()<32, 4>();
    else
        fail("CUDA kernel: a head of %d elements; at most 1024 are held", s.D);
}

constexpr int HEAD_THREADS = 256;

} // namespace nvl
