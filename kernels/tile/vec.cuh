// N neighbouring elements moved as one access of up to 16 bytes, computed on as floats.
#pragma once
#include "kernels/tile/types.cuh"

namespace nvl {

template <class X, int N> struct alignas(sizeof(X) * N) Vec { X x[N]; };
template <int N> struct Floats {
    float x[N];
    __device__ __forceinline__ float& operator[](int i) { return x[i]; }
    __device__ __forceinline__ float operator[](int i) const { return x[i]; }
};

/// Elements of one access where all views of a kernel have X or smaller types. A kernel that also moves f32
/// takes VEC<float> for all: two accesses of 16 bytes per lane would waste half of each sector.
template <class X> constexpr int VEC = 16 / sizeof(X);

template <class X, int N> __device__ __forceinline__ Floats<N> floats(const Vec<X, N>& v) {
    Floats<N> f;
#pragma unroll
    for (int i = 0; i < N; i++) f[i] = to_float(v.x[i]);
    return f;
}

template <int N, class X> __device__ __forceinline__ Floats<N> load(const X* p) {
    static_assert(sizeof(X) * N <= 16);
    return floats(*reinterpret_cast<const Vec<X, N>*>(p));
}
template <int N, class X> __device__ __forceinline__ void store(X* p, const Floats<N>& f) {
    static_assert(sizeof(X) * N <= 16);
    Vec<X, N> v;
#pragma unroll
    for (int i = 0; i < N; i++) v.x[i] = from_float<X>(f[i]);
    *reinterpret_cast<Vec<X, N>*>(p) = v;
}
/// Elements [c, c + N) of a row of C; those beyond are 0. All at once if `vector`, one by one if not.
template <int N, class X>
__device__ __forceinline__ Vec<X, N> load_part(const X* row, int c, int C, bool vector) {
    if (vector && c < C) return *reinterpret_cast<const Vec<X, N>*>(row + c);
    Vec<X, N> v;
#pragma unroll
    for (int i = 0; i < N; i++) v.x[i] = !vector && c + i < C ? row[c + i] : from_float<X>(0.f);
    return v;
}
/// What an Acc does: the first contribution writes, later ones add.
template <int N, class X> __device__ __forceinline__ void put(X* p, Floats<N> f, bool add) {
    if (add) {
        Floats<N> before = load<N>(p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] += before[i];
    }
    store<N>(p, f);
}

template <int N, class X>
__device__ __forceinline__ void put_part(X* row, int c, int C, const Floats<N>& f, bool vector, bool add) {
    if (vector) {
        if (c < C) put<N>(row + c, f, add);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (c + i < C) put<1>(row + c + i, Floats<1>{f[i]}, add);
}

/// Rounded to X and back: what a later kernel will read of a value that this one stores.
template <class X, int N> __device__ __forceinline__ Floats<N> rounded(Floats<N> f) {
#pragma unroll
    for (int i = 0; i < N; i++) f[i] = to_float(from_float<X>(f[i]));
    return f;
}

/// Whether rows of this view can be moved N elements at a time (the empty view can).
inline bool moves_by(const View& v, int N) {
    if (!v) return true;
    if (reinterpret_cast<uintptr_t>(v.data) % size_t(size_of(v.dtype) * N) || v.cols() % N) return false;
    for (int d = 0; d + 1 < v.rank; d++)
        if (v.shape[size_t(d)] != 1 && v.stride[size_t(d)] % N) return false;
    return true;
}
template <class... V> bool all_move_by(int N, const V&... views) { return (moves_by(views, N) && ...); }

/// Whether the view is one dense array (the empty view is).
inline bool is_dense(const View& v) {
    int64_t expected = 1;
    for (int d = v.rank - 1; v && d >= 0; expected *= v.shape[size_t(d)], d--)
        if (v.shape[size_t(d)] != 1 && v.stride[size_t(d)] != expected) return false;
    return true;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

} // namespace nvl
