// Where the elements of a tensor lie inside its buffer, and the geometry of views.
#pragma once
#include <array>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "engine/base/check.h"

namespace nvl {

/// An extent. symbol != 0: the size is a capacity and the true extent is size * count / capacity of that
/// symbol, known only when the program runs. Arithmetic carries the symbol along: (T * H, D) of a capacity T
/// has T' * H rows then.
struct Dim {
    int64_t size = 0;
    uint8_t symbol = 0;
    constexpr Dim() = default;
    template <std::integral I> constexpr Dim(I n, uint8_t s = 0) : size(n), symbol(s) {}
    constexpr operator int64_t() const { return size; }
    template <std::integral I> friend Dim operator*(Dim a, I b) { return {a.size * int64_t(b), a.symbol}; }
    friend Dim operator*(Dim a, Dim b) {
        check(!a.symbol || !b.symbol, "two capacity dimensions cannot be multiplied");
        return {a.size * b.size, uint8_t(a.symbol | b.symbol)};
    }
    template <std::integral I> friend Dim operator/(Dim a, I b) {
        check(a.size % int64_t(b) == 0, "extent %ld is not a multiple of %ld", a.size, int64_t(b));
        return {a.size / int64_t(b), a.symbol};
    }
};

constexpr int MAX_RANK = 5;

struct Shape {
    std::array<Dim, MAX_RANK> dims;
    int rank = 0;
    Shape() = default;
    Shape(std::initializer_list<Dim> d) {
        for (Dim x : d) push(x);
    }
    void push(Dim d) {
        check(rank < MAX_RANK, "a tensor has at most %d dimensions", MAX_RANK);
        dims[size_t(rank++)] = d;
    }
    /// Index of a dimension that may be counted from the end (-1 is the last).
    int axis(int i) const {
        int a = i < 0 ? i + rank : i;
        check(a >= 0 && a < rank, "dimension %d of a tensor with %d", i, rank);
        return a;
    }
    Dim& operator[](int i) { return dims[size_t(axis(i))]; }
    Dim operator[](int i) const { return dims[size_t(axis(i))]; }
    int64_t numel() const;
    std::string text() const; // "(<=4096,768)": <= marks a capacity
};
bool operator==(const Shape& a, const Shape& b);

/// Strides and offset (in elements) come from capacities and never change; only extents shrink at run time.
/// Hence a strided view of a program planned for T rows stays valid for every T' <= T.
struct Layout {
    Shape shape;
    std::array<int64_t, MAX_RANK> stride{};
    int64_t offset = 0;
    static Layout contiguous(const Shape& s);
    /// The last dimension is dense: what kernels ask for unless they say otherwise.
    bool dense_rows() const {
        return shape.rank == 0 || stride[size_t(shape.rank - 1)] == 1 || shape[-1] == 1;
    }
};

Layout slice(Layout, int dim, int64_t from, int64_t to);
Layout transpose(Layout, int a, int b);
Layout reshape(const Layout&, const Shape&);

/// How region a lies to region b of one buffer. `unknown` is always a safe answer.
enum class Relation { disjoint, inside, unknown };
Relation relation(const Layout& a, const Layout& b);

} // namespace nvl
