// linear on the GPU: products through cuda_gemm(); the bias's gradient as sums over fixed blocks of rows,
// which are added in order.
#include "kernels/linear/linear.h"

#include "engine/device/cuda.h"
#include "kernels/linear/gemm_cuda.h"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

void forward(Out y, In x, In w) { cuda_product(matrix(y), matrix(x), matrix(w).t()); }
void bias_forward(Out y, In x, In w, In b) { cuda_product(matrix(y), matrix(x), matrix(w).t(), {.bias = b}); }
void backward_dx(Acc dx, In dy, In w) {
    if (dx) cuda_product(matrix(dx), matrix(dy), matrix(w), {.add = dx.add});
}
void backward_dw(AccSum dw, In dy, In x) {
    if (dw) cuda_product(matrix(dw), matrix(dy).t(), matrix(x), {.add = dw.add});
}

constexpr int BLOCK_ROWS = 128, THREADS = 128;

/// A thread sums one column of one block of rows.
template <class X> __global__ void __launch_bounds__(THREADS)
    block_sums_kernel(float* partial, Rows<const X> dy, int64_t rows, int64_t cols) {
    int64_t c = int64_t(blockIdx.x) * THREADS + threadIdx.x, from = int64_t(blockIdx.y) * BLOCK_ROWS;
    if (c >= cols) return;
    int64_t to = min(rows, from + BLOCK_ROWS);
    float sum = 0;
#pragma unroll 8
    for (int64_t i = from; i < to; i++) sum += to_float(dy(i)[c]);
    partial[blockIdx.y * cols + c] = sum;
}
__global__ void __launch_bounds__(THREADS)
    add_blocks_kernel(float* db, const float* partial, int64_t blocks, int64_t cols, bool add) {
    int64_t c = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (c >= cols) return;
    float sum = 0;
#pragma unroll 8
    for (int64_t b = 0; b < blocks; b++) sum += partial[b * cols + c];
    db[c] = add ? db[c] + sum : sum;
}

int64_t backward_db_workspace(AccSum db, In dy) {
    return ceil_div(dy.rows(), BLOCK_ROWS) * dy.cols() * int64_t(sizeof(float));
}
void backward_db(AccSum db, In dy) {
    if (!db) return;
    int64_t rows = dy.rows(), cols = dy.cols(), blocks = ceil_div(rows, BLOCK_ROWS);
    unsigned across = unsigned(ceil_div(cols, THREADS));
    float* partial = cuda_workspace_of<float>(blocks * cols);
    if (blocks)
        cuda_dispatch(dy.dtype, [&]<class X> {
            block_sums_kernel<X><<<dim3(across, unsigned(blocks)), THREADS, 0, cuda_stream()>>>(
                partial, rows_of<const X>(dy), rows, cols);
        });
    check_launch("linear_db: sums of blocks");
    add_blocks_kernel<<<across, THREADS, 0, cuda_stream()>>>(pointer_of<float>(db), partial, blocks, cols,
                                                             db.add);
    check_launch("linear_db: sum of the blocks");
}

OnCuda on_forward{linear_forward, forward};
OnCuda on_bias{linear_bias_forward, bias_forward};
OnCuda on_dx{linear_dx, backward_dx};
OnCuda on_dw{linear_dw, backward_dw};
OnCuda on_db{linear_db, backward_db, backward_db_workspace};

} // namespace

} // namespace nvl
