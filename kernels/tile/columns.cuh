// The second stage of sums over rows: blocks leave partial sums in the workspace, this adds them in a fixed
// order. No atomics, so equal inputs give equal bits.
#pragma once
#include "engine/device/cuda.h"
#include "kernels/tile/vec.cuh"

namespace nvl {

/// to[c] = or += the sum over p of partials[p, c]. 32 threads of a column take every 32nd part, then their
/// sums are added in order.
static __global__ void __launch_bounds__(1024)
    column_sums(float* to, const float* partials, int parts, int64_t stride, int64_t columns, bool add) {
    __shared__ float sums[32][33];
    int64_t c = int64_t(blockIdx.x) * 32 + threadIdx.x;
    float sum = 0;
    if (c < columns)
        for (int p = int(threadIdx.y); p < parts; p += 32) sum += partials[p * stride + c];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= columns) return;
    sum = 0;
#pragma unroll
    for (int i = 0; i < 32; i++) sum += sums[i][threadIdx.x];
    to[c] = add ? to[c] + sum : sum;
}

/// Of partials (parts, stride), the columns from `first` on, into a dense gradient; nothing if it is not
/// wanted.
inline void add_columns(const char* kernel, const AccSum& to, const float* partials, int64_t parts,
                        int64_t stride, int64_t first = 0) {
    int64_t columns = to ? to.numel() : 0;
    if (!columns) return;
    if (!is_dense(to)) fail("%s: the gradient of a weight must be contiguous", kernel);
    column_sums<<<unsigned(ceil_div(columns, 32)), dim3(32, 32), 0, cuda_stream()>>>(
        pointer_of<float>(to), partials + first, int(parts), stride, columns, to.add);
    check_launch(kernel);
}

} // namespace nvl
