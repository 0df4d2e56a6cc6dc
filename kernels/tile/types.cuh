// Element types on the device, and how kernels there find the rows of a view.
#pragma once
#include <cuda_bf16.h>

#include "engine/tensor/view.h"

namespace nvl {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
/// Rounds to nearest, ties to even.
template <class X> __device__ __forceinline__ X from_float(float x) {
    if constexpr (std::is_same_v<X, __nv_bfloat16>)
        return __float2bfloat16_rn(x);
    else
        return x;
}

template <class X> constexpr Dtype cuda_dtype_of =
    std::is_same_v<X, __nv_bfloat16> ? Dtype::bf16 : dtype_of<X>;

/// cuda_dispatch(x.dtype, [&]<class X> { ... }) over the types that CUDA kernels compute in.
template <class F> void cuda_dispatch(Dtype d, F f) {
    switch (d) {
    case Dtype::f32: return f.template operator()<float>();
    case Dtype::bf16: return f.template operator()<__nv_bfloat16>();
    default: fail("no CUDA kernel computes in %s; expected f32 or bf16", name_of(d));
    }
}

/// The start of a view of this type; null for the empty view. X may be const.
template <class X> X* pointer_of(const View& v) {
    constexpr Dtype expected = cuda_dtype_of<std::remove_const_t<X>>;
    if (v && v.dtype != expected)
        fail("CUDA kernel asked for %s, tensor is %s", name_of(expected), name_of(v.dtype));
    return reinterpret_cast<X*>(v.data);
}

/// Where the rows of a view start: rows come in groups of `group` with a stride of their own (a slice of
/// heads out of (T, H, D)), or all have one stride (group = 0).
template <class X> struct Rows {
    X* data = nullptr;
    int64_t stride = 0, group_stride = 0;
    int group = 0;
    __device__ __forceinline__ X* operator()(int64_t i) const {
        if (!group) return data + i * stride;
        return data + int64_t(unsigned(i) / unsigned(group)) * group_stride +
               int64_t(unsigned(i) % unsigned(group)) * stride;
    }
    __host__ __device__ explicit operator bool() const { return data; }
};

/// The extents and strides of a view's rows, innermost first, with neighbours of one stride joined.
struct RowLevels {
    int n = 0;
    int64_t extent[MAX_RANK]{}, stride[MAX_RANK]{};
    explicit RowLevels(const View& v) {
        for (int d = v.rank - 2; d >= 0; d--) {
            size_t k = size_t(d);
            if (v.shape[k] == 1) continue;
            if (n && v.stride[k] == stride[n - 1] * extent[n - 1])
                extent[n - 1] *= v.shape[k];
            else
                extent[n] = v.shape[k], stride[n++] = v.stride[k];
        }
    }
};
inline bool has_rows(const View& v) { return RowLevels(v).n <= 2; }

/// Of any view with dense rows, whatever its rank, if two strides describe its rows; an error otherwise.
template <class X> Rows<X> rows_of(const View& v) {
    Rows<X> r{pointer_of<X>(v)};
    RowLevels levels(v);
    if (levels.n > 2) fail("CUDA kernel: a view of rank %d whose rows have three strides", v.rank);
    r.stride = levels.n ? levels.stride[0] : v.cols();
    if (levels.n == 2) r.group = int(levels.extent[0]), r.group_stride = levels.stride[1];
    return r;
}

} // namespace nvl
