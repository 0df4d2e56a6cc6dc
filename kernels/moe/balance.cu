// The balancing losses on the GPU: a warp for each row's softmax; sums over rows by fixed blocks, added in
// order.
#include "kernels/moe/balance.h"

#include "engine/device/cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

constexpr int ROWS = 8, THREADS = ROWS * WARP;

/// p = softmax(x) in shared memory, one row per warp; all lanes get log sum exp.
template <class X> __device__ __forceinline__ float softmax_row(const X* x, float* p, int E) {
    int lane = int(threadIdx.x) % WARP;
    float most = -INFINITY, sum = 0;
    for (int e = lane; e < E; e += WARP) most = fmaxf(most, p[e] = to_float(x[e]));
    most = warp_max(most);
    for (int e = lane; e < E; e += WARP) sum += p[e] = expf(p[e] - most);
    sum = warp_sum(sum);
    for (int e = lane; e < E; e += WARP) p[e] /= sum;
    __syncwarp();
    return most + logf(sum);
}

/// partial[block][e]: probabilities of the block's rows added up, then how often e was chosen in them.
template <class X> __global__ void __launch_bounds__(THREADS)
    block_sums_kernel(float* partial, Rows<const X> x, Rows<const int> choice, int T, int E, int K) {
    extern __shared__ float p[];
    int warp = int(threadIdx.x) / WARP, from = int(blockIdx.x) * ROWS, rows = min(ROWS, T - from);
    if (warp < rows) softmax_row(x(from + warp), p + warp * E, E);
    __syncthreads();
    for (int e = int(threadIdx.x); e < E; e += THREADS) {
        float sum = 0;
        int count = 0;
        for (int r = 0; r < rows; r++) {
            sum += p[r * E + e];
            for (int k = 0; k < K; k++) count += choice(from + r)[k] == e;
        }
        float* to = partial + int64_t(blockIdx.x) * 2 * E;
        to[e] = sum, to[E + e] = float(count);
    }
}

__global__ void __launch_bounds__(THREADS)
    add_blocks_kernel(float* sums, float* counts, const float* partial, int blocks, int E) {
    int e = int(blockIdx.x) * THREADS + int(threadIdx.x);
    if (e >= E) return;
    float sum = 0, count = 0;
    for (int b = 0; b < blocks; b++)
        sum += partial[int64_t(b) * 2 * E + e], count += partial[int64_t(b) * 2 * E + E + e];
    sums[e] = sum, counts[e] = count;
}

/// dx of routing_sums (by = dsums, per expert) or of router_z_loss (by = dloss, one number).
template <class X, bool Z> __global__ void __launch_bounds__(THREADS)
    gradient_kernel(Rows<X> dx, const float* by, Rows<const X> x, int T, int E, bool add) {
    extern __shared__ float p[];
    int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, t = int(blockIdx.x) * ROWS + warp;
    if (t >= T) return;
    float* row = p + warp * E;
    float lse = softmax_row(x(t), row, E), mean = 0;
    if constexpr (!Z) {
        for (int e = lane; e < E; e += WARP) mean += row[e] * by[e];
        mean = warp_sum(mean);
    }
    float f = Z ? *by * 2 * lse / float(T) : 0.f;
    for (int e = lane; e < E; e += WARP) put<1>(dx(t) + e, Floats<1>{row[e] * (Z ? f : by[e] - mean)}, add);
}

/// Rows of one warp, lane by lane in order: one block of one warp, for sums that are short.
__global__ void __launch_bounds__(WARP)
    balance_kernel(float* loss, const float* sums, const float* counts, int E) {
    float rows = 0, product = 0;
    for (int e = int(threadIdx.x); e < E; e += WARP) rows += sums[e], product += counts[e] * sums[e];
    rows = fmaxf(1.f, rintf(warp_sum(rows))), product = warp_sum(product);
    if (threadIdx.x == 0) *loss = float(E) * product / (rows * rows);
}
__global__ void __launch_bounds__(WARP)
    balance_back_kernel(float* dsums, const float* dloss, const float* sums, const float* counts, int E,
                        bool add) {
    float rows = 0;
    for (int e = int(threadIdx.x); e < E; e += WARP) rows += sums[e];
    rows = fmaxf(1.f, rintf(warp_sum(rows)));
    for (int e = int(threadIdx.x); e < E; e += WARP)
        put<1>(dsums + e, Floats<1>{*dloss * float(E) * counts[e] / (rows * rows)}, add);
}

template <class X> __global__ void __launch_bounds__(THREADS)
    z_blocks_kernel(float* partial, Rows<const X> x, int T, int E) {
    extern __shared__ float p[];
    __shared__ float square[ROWS];
    int warp = int(threadIdx.x) / WARP, t = int(blockIdx.x) * ROWS + warp;
    float lse = t < T ? softmax_row(x(t), p + warp * E, E) : 0.f;
    if (threadIdx.x % WARP == 0) square[warp] = lse * lse;
    __syncthreads();
    if (threadIdx.x) return;
    float sum = 0;
    for (int r = 0; r < ROWS; r++) sum += square[r];
    partial[blockIdx.x] = sum;
}
__global__ void __launch_bounds__(WARP) z_total_kernel(float* loss, const float* partial, int blocks, int T) {
    float sum = 0;
    for (int b = int(threadIdx.x); b < blocks; b += WARP) sum += partial[b];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) *loss = sum / float(max(1, T));
}

size_t room(const char* kernel, int64_t E) {
    size_t bytes = size_t(ROWS * E) * sizeof(float);
    check(bytes <= 47 << 10, "%s: %ld experts need %zu bytes of shared memory; at most %d are supported",
          kernel, E, bytes, 47 << 10);
    return bytes;
}
unsigned blocks_of(const View& x) { return unsigned(ceil_div(x.rows(), ROWS)); }

int64_t sums_workspace(Out, Out, In x, In) {
    return int64_t(blocks_of(x)) * 2 * x.cols() * int64_t(sizeof(float));
}
void sums_launch(Out sums, Out counts, In x, In choice) {
    int E = int(x.cols()), blocks = int(blocks_of(x));
    size_t bytes = room("routing_sums", E);
    float* partial = cuda_workspace_of<float>(int64_t(blocks) * 2 * E);
    if (blocks)
        cuda_dispatch(x.dtype, [&]<class X> {
            block_sums_kernel<X><<<unsigned(blocks), THREADS, bytes, cuda_stream()>>>(
                partial, rows_of<const X>(x), rows_of<const int>(choice), int(x.rows()), E,
                int(choice.cols()));
        });
    add_blocks_kernel<<<unsigned(ceil_div(E, THREADS)), THREADS, 0, cuda_stream()>>>(
        pointer_of<float>(sums), pointer_of<float>(counts), partial, blocks, E);
    check_launch("routing_sums");
}

template <bool Z> void gradient_launch(Acc dx, In by, In x) {
    if (!dx || !x.rows()) return;
    size_t bytes = room("routing_sums_backward", x.cols());
    cuda_dispatch(x.dtype, [&]<class X> {
        gradient_kernel<X, Z><<<blocks_of(x), THREADS, bytes, cuda_stream()>>>(
            rows_of<X>(dx), pointer_of<const float>(by), rows_of<const X>(x), int(x.rows()), int(x.cols()),
            dx.add);
    });
    check_launch("routing_sums_backward");
}

void balance_launch(Out loss, In sums, In counts) {
    balance_kernel<<<1, WARP, 0, cuda_stream()>>>(pointer_of<float>(loss), pointer_of<const float>(sums),
                                                  pointer_of<const float>(counts), int(sums.numel()));
    check_launch("balance_loss");
}
void balance_back_launch(Acc dsums, In dloss, In sums, In counts) {
    if (!dsums) return;
    balance_back_kernel<<<1, WARP, 0, cuda_stream()>>>(
        pointer_of<float>(dsums), pointer_of<const float>(dloss), pointer_of<const float>(sums),
        pointer_of<const float>(counts), int(sums.numel()), dsums.add);
    check_launch("balance_loss_backward");
}

int64_t z_workspace(Out, In x) { return int64_t(blocks_of(x)) * int64_t(sizeof(float)); }
void z_launch(Out loss, In x) {
    size_t bytes = room("router_z_loss", x.cols());
    unsigned blocks = blocks_of(x);
    float* partial = cuda_workspace_of<float>(blocks);
    if (blocks)
        cuda_dispatch(x.dtype, [&]<class X> {
            z_blocks_kernel<X><<<blocks, THREADS, bytes, cuda_stream()>>>(partial, rows_of<const X>(x),
                                                                          int(x.rows()), int(x.cols()));
        });
    z_total_kernel<<<1, WARP, 0, cuda_stream()>>>(pointer_of<float>(loss), partial, int(blocks),
                                                  int(x.rows()));
    check_launch("router_z_loss");
}

OnCuda on_sums{routing_sums_forward, sums_launch, sums_workspace},
    on_sums_back{routing_sums_backward, gradient_launch<false>},
    on_balance{balance_loss_forward, balance_launch},
    on_balance_back{balance_loss_backward, balance_back_launch},
    on_z{router_z_forward, z_launch, z_workspace}, on_z_back{router_z_backward, gradient_launch<true>};

} // namespace

} // namespace nvl
