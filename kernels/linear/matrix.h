// Views as the matrices of a product, whichever of their two dimensions is the dense one.
#pragma once
#include <utility>

#include "engine/tensor/view.h"
#include "kernels/linear/gemm.h"

namespace nvl {

/// rows x cols; element (i, j) is at i * ld + j, or at j * ld + i if transposed.
struct Matrix {
    void* data = nullptr;
    int64_t rows = 0, cols = 0, ld = 0;
    bool transposed = false;
    Dtype dtype = Dtype::f32;
    Matrix t() const { return {data, cols, rows, ld, !transposed, dtype}; }
    /// Rows [from, to).
    Matrix part(int64_t from, int64_t to) const {
        int64_t step = (transposed ? 1 : ld) * size_of(dtype);
        return {static_cast<std::byte*>(data) + from * step, to - from, cols, ld, transposed, dtype};
    }
};

/// A view (..., C) as (rows, C): its outer dimensions must lie at one distance.
inline Matrix matrix(const View& v) {
    if (v.rank == 2 && v.stride[1] != 1 && v.stride[0] == 1)
        return {v.data, v.dim(0), v.dim(1), v.stride[1], true, v.dtype};
    int64_t ld = v.rows() <= 1 ? v.cols() : v.row_stride(); // a single row may have any stride
    check(ld >= 0 && (v.cols() == 1 || v.stride[size_t(v.rank - 1)] == 1),
          "a matrix product needs rows at one distance and dense in one dimension; call contiguous() first");
    return {v.data, v.rows(), v.cols(), ld, false, v.dtype};
}

/// Which way a weight is stored: (outputs, inputs) as most checkpoints do, or (inputs, outputs) as GPT-OSS
/// does.
enum class Weights : uint8_t { out_in, in_out };

/// Matrix i of a stack, as (outputs, inputs).
inline Matrix stacked_weight(const View& w, int64_t i, Weights order) {
    Matrix m{w.data + i * w.stride[0] * size_of(w.dtype), w.dim(1), w.dim(2), w.stride[1], false, w.dtype};
    return order == Weights::out_in ? m : m.t();
}

/// Head h of (T, H, A) as (T, A): rows are H heads apart.
inline Matrix head_of(const View& x, int64_t h) {
    return {x.data + h * x.stride[1] * size_of(x.dtype), x.dim(0), x.dim(2), x.stride[0], false, x.dtype};
}

/// Result options of product(): c = (add ? c : 0) + residual + a b + bias.
struct ProductOptions {
    bool add = false;
    View bias{};
    Matrix residual{};
    const PackedWeight* packed = nullptr; // of b^T; stands in place of b
};

/// c (M,N) from a (M,K) and b (K,N), as gemm() wants it.
inline GemmArgs product_args(Matrix c, Matrix a, Matrix b, const ProductOptions& o = {}) {
    check(a.cols == b.rows && c.rows == a.rows && c.cols == b.cols,
          "product: (%ld,%ld) from (%ld,%ld) and (%ld,%ld)", c.rows, c.cols, a.rows, a.cols, b.rows, b.cols);
    check(a.dtype == b.dtype, "product: %s and %s do not multiply", name_of(a.dtype), name_of(b.dtype));
    if (c.transposed) { // c^T = b^T a^T
        check(!o.bias && !o.residual.data, "product: a transposed result takes no bias and no residual");
        return product_args(c.t(), b.t(), a.t(), o);
    }
    return {.M = c.rows,
            .N = c.cols,
            .K = a.cols,
            .A = a.data,
            .lda = a.ld,
            .trans_a = a.transposed,
            .B = o.packed ? nullptr : b.data,
            .ldb = o.packed ? 0 : b.ld,
            .trans_b = b.transposed,
            .C = c.data,
            .ldc = c.ld,
            .in = a.dtype,
            .out = c.dtype,
            .accumulate = o.add,
            .bias = o.bias.data,
            .bias_dtype = o.bias.dtype,
            .residual = o.residual.data,
            .ldr = o.residual.ld,
            .packed = o.packed};
}

inline void product(Matrix c, Matrix a, Matrix b, const ProductOptions& o = {}) {
    gemm(product_args(c, a, b, o));
}

} // namespace nvl
