// N neighbouring elements moved as one access of up to 16 bytes, computed on as floats.
#pragma once
#include "kernels/tile/types.cuh"

namespace nvl {

template <int BYTES> struct Word;
template <> struct Word<16> { using type = uint4; };
template <> struct Word<8> { using type = uint2; };
template <> struct Word<4> { using type = unsigned; };
template <> struct Word<2> { using type = unsigned short; };
/// Moved as one word: a copy of the elements would be as many accesses as there are elements.
template <class X, int N> union Vec {
    typename Word<sizeof(X) * N>::type word;
    X x[N];
};
template <int N, class X> __device__ __forceinline__ Vec<X, N> load_word(const X* p) {
    Vec<X, N> v;
    v.word = *reinterpret_cast<const decltype(v.word)*>(p);
    return v;
}
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
    return floats(load_word<N>(p));
}
/// The elements as they lie in memory.
template <int N, class X>
__device__ __forceinline__ typename Word<sizeof(X) * N>::type word_of(const Floats<N>& f) {
    static_assert(sizeof(X) * N <= 16);
    constexpr int WORDS = int(sizeof(X)) * N / 4;
    if constexpr (WORDS == 0)
        return __bfloat16_as_ushort(from_float<X>(f[0]));
    else {
        unsigned w[WORDS];
#pragma unroll
        for (int i = 0; i < WORDS; i++)
            if constexpr (sizeof(X) == 4)
                w[i] = __float_as_uint(f[i]);
            else {
                __nv_bfloat162 two = __floats2bfloat162_rn(f[2 * i], f[2 * i + 1]);
                w[i] = *reinterpret_cast<unsigned*>(&two);
            }
        if constexpr (WORDS == 1)
            return w[0];
        else if constexpr (WORDS == 2)
            return make_uint2(w[0], w[1]);
        else
            return make_uint4(w[0], w[1], w[2], w[3]);
    }
}
template <int N, class X> __device__ __forceinline__ void store(X* p, const Floats<N>& f) {
    auto word = word_of<N, X>(f);
    *reinterpret_cast<decltype(word)*>(p) = word;
}

// Stores to global memory as one instruction each: left to itself the compiler takes them apart where the
// same values are also stored one by one on another path.
__device__ __forceinline__ void store_global(uint4* p, uint4 w) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)), "r"(w.x),
                 "r"(w.y), "r"(w.z), "r"(w.w)
                 : "memory");
}
__device__ __forceinline__ void store_global(uint2* p, uint2 w) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(p)), "r"(w.x), "r"(w.y)
                 : "memory");
}
__device__ __forceinline__ void store_global(unsigned* p, unsigned w) { *p = w; }
__device__ __forceinline__ void store_global(unsigned short* p, unsigned short w) { *p = w; }

/// Elements [c, c + N) of a row of C; those beyond are 0. All at once if `vector`, one by one if not.
template <int N, class X>
__device__ __forceinline__ Vec<X, N> load_part(const X* row, int c, int C, bool vector) {
    if (vector && c < C) return load_word<N>(row + c);
    Vec<X, N> v;
#pragma unroll
    for (int i = 0; i < N; i++) v.x[i] = !vector && c + i < C ? row[c + i] : from_float<X>(0.f);
    return v;
}
/// What an Acc (in global memory) does: the first contribution writes, later ones add.
template <int N, class X> __device__ __forceinline__ void put(X* p, Floats<N> f, bool add) {
    if (add) {
        Floats<N> before = load<N>(p);
#pragma unroll
        for (int i = 0; i < N; i++) f[i] += before[i];
    }
    auto word = word_of<N, X>(f);
    store_global(reinterpret_cast<decltype(word)*>(p), word);
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

/// body<X, N>() with the widest access that all views allow.
template <class F, class... V> void by_width(Dtype dtype, F body, const V&... views) {
    cuda_dispatch(dtype, [&]<class X> {
        if (all_move_by(VEC<X>, views...))
            body.template operator()<X, VEC<X>>();
        else
            body.template operator()<X, 1>();
    });
}

/// Whether the view is one dense array (the empty view is).
inline bool is_dense(const View& v) {
    int64_t expected = 1;
    for (int d = v.rank - 1; v && d >= 0; expected *= v.shape[size_t(d)], d--)
        if (v.shape[size_t(d)] != 1 && v.stride[size_t(d)] != expected) return false;
    return true;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

} // namespace nvl
