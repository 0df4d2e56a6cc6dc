// grouped_linear on the GPU: one launch for all experts. How many rows each has is read on the device; a
// block finds its expert by a scan over the counts, so nothing waits for the host. The tiles are those of the
// plain products.
#include "kernels/moe/grouped_linear.h"

#include "engine/device/cuda.h"
#include "kernels/linear/gemm_bf16.cuh"
#include "kernels/linear/gemm_f32.cuh"
#include "kernels/linear/matrix.h"

namespace nvl {

namespace {

/// Rows of expert e: [begin, begin + count).
struct Group {
    int expert, begin, count;
};

/// The experts' rows are cut into tiles of ROWS, expert by expert; then those that belong to nobody (expert =
/// E). Finds tile `slot` and its first row within the group. Every warp computes it alike.
template <int ROWS>
__device__ __forceinline__ Group group_of_slot(const int* offsets, int E, int rows, int slot, int& row) {
    constexpr unsigned ALL = 0xffffffffu;
    int lane = int(threadIdx.x) & 31, before = 0; // tiles of the experts before
    for (int base = 0; base < E; base += 32) {
        int e = base + lane, begin = e < E ? offsets[e] : 0, count = e < E ? offsets[e + 1] - begin : 0;
        int tiles = (count + ROWS - 1) / ROWS, sum = tiles;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            int left = __shfl_up_sync(ALL, sum, unsigned(d));
            if (lane >= d) sum += left;
        }
        if (unsigned hit = __ballot_sync(ALL, slot < before + sum)) {
            int at = __ffs(int(hit)) - 1;
            row = (slot - before - __shfl_sync(ALL, sum - tiles, at)) * ROWS;
            return {base + at, __shfl_sync(ALL, begin, at), __shfl_sync(ALL, count, at)};
        }
        before += __shfl_sync(ALL, sum, 31);
    }
    row = (slot - before) * ROWS;
    return {E, offsets[E], rows - offsets[E]};
}

/// What differs between experts: steps in elements.
struct Steps {
    int64_t b, c, bias;
};
__device__ __forceinline__ void move(CudaEpilogue& e, int64_t elements) {
    e.c = static_cast<char*>(e.c) + elements * (e.bf16_out ? 2 : 4);
}
/// The result of one group: its rows of C, its bias; zeros for rows of nobody, unless C is added to.
__device__ __forceinline__ bool enter_group(CudaEpilogue& e, const Group& g, int E, const Steps& step) {
    if (g.expert == E && e.add) return false;
    move(e, g.begin * e.ldc);
    e.M = g.count;
    if (e.bias) e.bias = static_cast<const char*>(e.bias) + g.expert * step.bias * (e.bf16_bias ? 2 : 4);
    if (g.expert == E) e.bias = nullptr;
    return true;
}

// C = A B[e] over the rows of each expert. Grid: (slots, tiles of columns).
template <class T, bool B_DENSE_K> __global__ void __launch_bounds__(T::THREADS)
    grouped_rows_bf16_kernel(bf16_tiles::Operand A, bf16_tiles::Operand B, int K, CudaEpilogue e,
                             const int* offsets, int E, Steps step) {
    extern __shared__ __align__(128) float shared[];
    int row;
    Group g = group_of_slot<T::BM>(offsets, E, e.M, int(blockIdx.x), row);
    if (row >= g.count || !enter_group(e, g, E, step)) return;
    A.data += g.begin * A.ld, A.outers = g.count;
    if (g.expert == E) g.expert = 0, K = 0;
    B.data += g.expert * step.b;
    bf16_tiles::multiply_tile<T, true, B_DENSE_K>(shared, A, B, K, row, int(blockIdx.y) * T::BN, e);
}
template <class T> __global__ void __launch_bounds__(T::THREADS)
    grouped_rows_f32_kernel(f32_tiles::Operand A, f32_tiles::Operand B, CudaEpilogue e, const int* offsets,
                            int E, Steps step) {
    int row;
    Group g = group_of_slot<T::BM>(offsets, E, e.M, int(blockIdx.x), row);
    if (row >= g.count || !enter_group(e, g, E, step)) return;
    A.data += g.begin * A.ld, A.rows = g.count;
    if (g.expert == E) g.expert = 0, A.K = B.K = 0;
    B.data += g.expert * step.b;
    f32_tiles::multiply_tile<T>(A, B, row, int(blockIdx.y) * T::BN, e);
}

// C[e] = A^T B, summed over the rows of each expert. Grid: (tiles of rows, tiles of columns, experts).
template <class T> __global__ void __launch_bounds__(T::THREADS)
    grouped_sums_bf16_kernel(bf16_tiles::Operand A, bf16_tiles::Operand B, CudaEpilogue e, const int* offsets,
                             Steps step) {
    extern __shared__ __align__(128) float shared[];
    int begin = offsets[blockIdx.z], count = offsets[blockIdx.z + 1] - begin;
    A.data += begin * A.ld, B.data += begin * B.ld, A.outers = B.outers = count;
    move(e, blockIdx.z * step.c);
    bf16_tiles::multiply_tile<T, false, false>(shared, A, B, count, int(blockIdx.x) * T::BM,
                                               int(blockIdx.y) * T::BN, e);
}
template <class T> __global__ void __launch_bounds__(T::THREADS)
    grouped_sums_f32_kernel(f32_tiles::Operand A, f32_tiles::Operand B, CudaEpilogue e, const int* offsets,
                            Steps step) {
    int begin = offsets[blockIdx.z], count = offsets[blockIdx.z + 1] - begin;
    A.data += begin * A.ld, B.data += begin * B.ld, A.K = B.K = count;
    move(e, blockIdx.z * step.c);
    f32_tiles::multiply_tile<T>(A, B, int(blockIdx.x) * T::BM, int(blockIdx.y) * T::BN, e);
}

bf16_tiles::Operand bf16_operand(const Matrix& m) {
    int64_t outers = m.transposed ? m.cols : m.rows, inners = m.transposed ? m.rows : m.cols;
    return {static_cast<const __nv_bfloat16*>(m.data), m.ld, int(outers), int(inners),
            bf16_tiles::rows_start_at_16_bytes(m.data, m.ld, outers)};
}
f32_tiles::Operand f32_operand(const Matrix& m, int64_t rows, int64_t K, bool dense_rows) {
    return {static_cast<const float*>(m.data),
            m.ld,
            int(rows),
            int(K),
            dense_rows,
            f32_tiles::rows_start_at_16_bytes(m.data, m.ld, dense_rows ? K : rows)};
}

CudaEpilogue result(const Matrix& c, bool add, const View& bias, int64_t step) {
    CudaEpilogue e = cuda_epilogue({.M = c.rows,
                                    .N = c.cols,
                                    .C = c.data,
                                    .ldc = c.ld,
                                    .out = c.dtype,
                                    .accumulate = add,
                                    .bias = bias.data,
                                    .bias_dtype = bias ? bias.dtype : Dtype::f32},
                                   1);
    e.vector = e.vector && step % 4 == 0;
    return e;
}
const int* numbers(const View& offsets) { return pointer_of<const int32_t>(offsets); }
/// Expert 0's slice of (E, a, b).
Matrix first_of(const View& w) { return {w.data, w.dim(1), w.dim(2), w.stride[1], false, w.dtype}; }

template <class T, bool B_DENSE_K> void launch_rows_bf16(const Matrix& a, const Matrix& b,
                                                         const CudaEpilogue& e, const In& offsets,
                                                         const Steps& step) {
    constexpr auto kernel = grouped_rows_bf16_kernel<T, B_DENSE_K>;
    bf16_tiles::allow_shared<kernel>(T::BYTES);
    int E = int(offsets.dim(0)) - 1;
    bf16_tiles::Operand A = bf16_operand(a), B = bf16_operand(b);
    B.aligned = B.aligned && step.b % 8 == 0;
    dim3 grid(unsigned(ceil_div(e.M, T::BM) + E), unsigned(ceil_div(e.N, T::BN)));
    kernel<<<grid, T::THREADS, T::BYTES, cuda_stream()>>>(A, B, int(a.cols), e, numbers(offsets), E, step);
}

/// c = a b[e] + bias[e]: a (R, K), b of expert 0 as (K, N).
void grouped_rows(const Matrix& c, const Matrix& a, const Matrix& b, const View& bias, bool add,
                  const In& offsets, int64_t step_b) {
    Steps step{step_b, 0, bias ? bias.stride[0] : 0};
    int E = int(offsets.dim(0)) - 1;
    if (!c.rows || !c.cols) return;
    CudaEpilogue e = result(c, add, bias, step.bias);
    if (a.dtype == Dtype::f32) {
        using T = f32_tiles::Small;
        f32_tiles::Operand A = f32_operand(a, a.rows, a.cols, false),
                           B = f32_operand(b, b.cols, b.rows, !b.transposed);
        B.vector = B.vector && step.b % 4 == 0;
        dim3 grid(unsigned(ceil_div(e.M, T::BM) + E), unsigned(ceil_div(e.N, T::BN)));
        grouped_rows_f32_kernel<T>
            <<<grid, T::THREADS, 0, cuda_stream()>>>(A, B, e, numbers(offsets), E, step);
    } else {
        bool aligned = bf16_operand(a).aligned && bf16_operand(b).aligned && step.b % 8 == 0;
        bool large =
            aligned && a.rows >= E * int64_t(bf16_tiles::Large::BM) && c.cols >= bf16_tiles::Large::BN;
        auto launch = [&]<class T>() {
            b.transposed ? launch_rows_bf16<T, true>(a, b, e, offsets, step)
                         : launch_rows_bf16<T, false>(a, b, e, offsets, step);
        };
        large ? launch.template operator()<bf16_tiles::Large>()
              : launch.template operator()<bf16_tiles::Small>();
    }
    check_launch("grouped_linear");
}

void forward(Out y, In x, In w, In b, In offsets, Weights order, bool biased) {
    Matrix first = first_of(w);
    grouped_rows(matrix(y), matrix(x), order == Weights::out_in ? first.t() : first,
                 biased ? View(b) : View{}, false, offsets, w.stride[0]);
}
void backward_dx(Acc dx, In dy, In w, In offsets, Weights order) {
    if (!dx) return;
    Matrix first = first_of(w);
    grouped_rows(matrix(dx), matrix(dy), order == Weights::out_in ? first : first.t(), {}, dx.add, offsets,
                 w.stride[0]);
}

template <class T> void launch_sums_bf16(const Matrix& a, const Matrix& b, const CudaEpilogue& e,
                                         const In& offsets, const Steps& step) {
    constexpr auto kernel = grouped_sums_bf16_kernel<T>;
    bf16_tiles::allow_shared<kernel>(T::BYTES);
    dim3 grid(unsigned(ceil_div(e.M, T::BM)), unsigned(ceil_div(e.N, T::BN)), unsigned(offsets.dim(0) - 1));
    kernel<<<grid, T::THREADS, T::BYTES, cuda_stream()>>>(bf16_operand(a), bf16_operand(b), e,
                                                          numbers(offsets), step);
}
void backward_dw(AccSum dw, In dy, In x, In offsets, Weights order) {
    if (!dw || !dw.numel()) return;
    bool out_in = order == Weights::out_in;
    Matrix a = matrix(out_in ? dy : x), b = matrix(out_in ? x : dy), c = first_of(dw); // c = a^T b
    Steps step{0, dw.stride[0], 0};
    CudaEpilogue e = result(c, dw.add, {}, step.c);
    if (a.dtype == Dtype::f32) {
        using T = f32_tiles::Small;
        dim3 grid(unsigned(ceil_div(e.M, T::BM)), unsigned(ceil_div(e.N, T::BN)),
                  unsigned(offsets.dim(0) - 1));
        grouped_sums_f32_kernel<T><<<grid, T::THREADS, 0, cuda_stream()>>>(
            f32_operand(a, a.cols, a.rows, true), f32_operand(b, b.cols, b.rows, true), e, numbers(offsets),
            step);
    } else {
        bool large = bf16_operand(a).aligned && bf16_operand(b).aligned && e.M >= bf16_tiles::Large::BM &&
                     e.N >= bf16_tiles::Large::BN;
        large ? launch_sums_bf16<bf16_tiles::Large>(a, b, e, offsets, step)
              : launch_sums_bf16<bf16_tiles::Small>(a, b, e, offsets, step);
    }
    check_launch("grouped_linear_dw");
}

/// A thread sums one column of one expert's rows, in order.
constexpr int THREADS = 128;
template <class X> __global__ void __launch_bounds__(THREADS)
    grouped_db_kernel(Rows<float> db, Rows<const X> dy, const int* offsets, int cols, bool add) {
    int c = int(blockIdx.x) * THREADS + int(threadIdx.x), e = int(blockIdx.y);
    if (c >= cols) return;
    float sum = 0;
#pragma unroll 4
    for (int n = offsets[e]; n < offsets[e + 1]; n++) sum += to_float(dy(n)[c]);
    float* to = db(e) + c;
    *to = add ? *to + sum : sum;
}
void backward_db(AccSum db, In dy, In offsets) {
    if (!db || !db.numel()) return;
    cuda_dispatch(dy.dtype, [&]<class X> {
        dim3 grid(unsigned(ceil_div(dy.cols(), THREADS)), unsigned(offsets.dim(0) - 1));
        grouped_db_kernel<X><<<grid, THREADS, 0, cuda_stream()>>>(rows_of<float>(db), rows_of<const X>(dy),
                                                                  numbers(offsets), int(dy.cols()), db.add);
    });
    check_launch("grouped_linear_db");
}

OnCuda on_forward{grouped_forward, forward};
OnCuda on_dx{grouped_dx, backward_dx};
OnCuda on_dw{grouped_dw, backward_dw};
OnCuda on_db{grouped_db, backward_db};

} // namespace

} // namespace nvl
