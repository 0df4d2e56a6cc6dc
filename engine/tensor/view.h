// What a kernel sees of a tensor while it runs, and the parameter types that say how a kernel uses it.
#pragma once
#include <array>
#include <cstddef>

#include "engine/base/dtype.h"
#include "engine/tensor/layout.h"

namespace nvl {

/// True extents (T' rows, not the capacity), strides in elements.
struct View {
    std::byte* data = nullptr;
    Dtype dtype = Dtype::f32;
    bool add = false; // of an Acc: add to what is there
    int rank = 0;
    std::array<int64_t, MAX_RANK> shape{}, stride{};
    explicit operator bool() const { return data; }
    int64_t dim(int i) const { return shape[size_t(i < 0 ? rank + i : i)]; }
    int64_t numel() const {
        int64_t n = 1;
        for (size_t i = 0; i < size_t(rank); i++) n *= shape[i];
        return n;
    }
    int64_t cols() const { return rank ? shape[size_t(rank - 1)] : 1; }
    int64_t rows() const { return cols() ? numel() / cols() : 0; }
    int64_t bytes() const { return data ? numel() * size_of(dtype) : 0; }
    /// Distance in elements between consecutive rows, if it is the same for all rows (-1 if not). GEMM's lda.
    int64_t row_stride() const {
        if (rank < 2) return cols();
        for (size_t d = size_t(rank) - 2; d-- > 0;)
            if (shape[d] != 1 && stride[d] != stride[d + 1] * shape[d + 1]) return -1;
        return stride[size_t(rank - 2)];
    }
    template <class X> X* as() const {
        if (dtype != dtype_of<X>)
            fail("kernel asked for %s, tensor is %s", name_of(dtype_of<X>), name_of(dtype));
        return reinterpret_cast<X*>(data);
    }
    /// The i-th dense row, whatever the outer strides are.
    template <class X> X* row(int64_t i) const {
        int64_t at = 0;
        for (int d = rank - 2; d >= 0; d--)
            at += i % shape[size_t(d)] * stride[size_t(d)], i /= shape[size_t(d)];
        return as<X>() + at;
    }
};

/// Read.
struct In : View {
    template <class X> const X* row(int64_t i) const { return View::row<X>(i); }
    template <class X> const X* as() const { return View::as<X>(); }
};
/// Written whole and never read: the old content is garbage.
struct Out : View {};
/// Read and partly written in place.
struct InOut : View {};
/// A gradient in the storage type of its tensor: the first contribution writes, later ones add; empty if not
/// wanted.
struct Acc : View {
    template <class X, class V> void put(X& to, V v) const { to = add ? X(V(to) + v) : X(v); }
};
/// The same in f32 (f64 of f64): what a kernel sums over all tokens, such as a weight's gradient.
struct AccSum : Acc {};

enum class Use : uint8_t { in, out, inout, acc };
template <class P> constexpr bool is_view = std::is_base_of_v<View, P>;
template <class P> constexpr Use use_of = std::is_same_v<P, In>      ? Use::in
                                          : std::is_same_v<P, Out>   ? Use::out
                                          : std::is_same_v<P, InOut> ? Use::inout
                                                                     : Use::acc;

} // namespace nvl
