// Sorting tokens by expert and moving their rows, on the GPU.
//
// moe_sort is a counting sort in three launches: a warp numbers the choices of its chunk expert by expert;
// one block turns the chunks' counts into first rows; every choice then knows its row. No atomics: the order
// is that of tokens.
#include "kernels/moe/dispatch.h"

#include "engine/device/cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

constexpr unsigned ALL = 0xffffffffu;
constexpr int CHUNK = 512, THREADS = 256;

/// number[i]: how many choices of the chunk before i have its expert; counts[chunk][e]: how many have e.
__global__ void __launch_bounds__(WARP)
    number_kernel(int* number, int* counts, Rows<const int> choice, int n, int K, int E) {
    extern __shared__ int seen[];
    int lane = int(threadIdx.x), from = int(blockIdx.x) * CHUNK;
    for (int e = lane; e < E; e += WARP) seen[e] = 0;
    __syncwarp();
    for (int i = from + lane; i < from + CHUNK; i += WARP) {
        int e = i < n ? choice(i / K)[i % K] : -1;
        unsigned same = __match_any_sync(ALL, e), before = same & ((1u << lane) - 1);
        int first = e >= 0 ? seen[e] : 0;
        __syncwarp();
        if (e >= 0) {
            number[i] = first + __popc(before);
            if (!before) seen[e] = first + __popc(same);
        }
        __syncwarp();
    }
    for (int e = lane; e < E; e += WARP) counts[blockIdx.x * E + e] = seen[e];
}

/// counts[chunk][e] becomes the number of e's choices in earlier chunks; offsets the first row of each
/// expert.
__global__ void __launch_bounds__(THREADS)
    offsets_kernel(int* offsets, int* counts, int chunks, int E, int capacity) {
    extern __shared__ int total[];
    for (int e = int(threadIdx.x); e < E; e += THREADS) {
        int sum = 0;
        for (int c = 0; c < chunks; c++) {
            int count = counts[c * E + e];
            counts[c * E + e] = sum;
            sum += count;
        }
        total[e] = capacity ? min(sum, capacity) : sum;
    }
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    int lane = int(threadIdx.x), before = 0;
    if (lane == 0) offsets[0] = 0;
    for (int base = 0; base < E; base += WARP) {
        int e = base + lane, sum = e < E ? total[e] : 0;
#pragma unroll
        for (int d = 1; d < WARP; d *= 2) {
            int left = __shfl_up_sync(ALL, sum, d);
            if (lane >= d) sum += left;
        }
        if (e < E) offsets[e + 1] = before + sum;
        before += __shfl_sync(ALL, sum, WARP - 1);
    }
}

__global__ void __launch_bounds__(THREADS)
    place_kernel(int* source, Rows<int> position, const int* offsets, const int* number, const int* counts,
                 Rows<const int> choice, int n, int K, int E, int capacity) {
    int i = int(blockIdx.x) * THREADS + int(threadIdx.x);
    if (i >= n) return;
    if (i >= offsets[E]) source[i] = -1;
    int e = choice(i / K)[i % K], row = counts[i / CHUNK * E + e] + number[i];
    bool dropped = capacity && row >= capacity;
    row += offsets[e];
    position(i / K)[i % K] = dropped ? -1 : row;
    if (!dropped) source[row] = i;
}

int64_t sort_chunks(const View& choice) { return ceil_div(std::max<int64_t>(1, choice.numel()), CHUNK); }

int64_t sort_workspace(Out, Out, Out offsets, In choice, int64_t) {
    return (sort_chunks(choice) * (offsets.dim(0) - 1) + choice.numel()) * int64_t(sizeof(int));
}

void sort(Out source, Out position, Out offsets, In choice, int64_t capacity) {
    int64_t n = choice.numel(), E = offsets.dim(0) - 1, chunks = sort_chunks(choice);
    check(E * int64_t(sizeof(int)) <= 48 << 10, "moe_sort: %ld experts; at most %d are supported", E,
          12 << 10);
    int *counts = cuda_workspace_of<int>(chunks * E + n), *number = counts + chunks * E;
    int K = int(choice.cols()), e = int(E), cap = int(capacity);
    auto bytes = size_t(E) * sizeof(int);
    cudaStream_t s = cuda_stream();
    number_kernel<<<unsigned(chunks), WARP, bytes, s>>>(number, counts, rows_of<const int>(choice), int(n), K,
                                                        e);
    offsets_kernel<<<1, THREADS, bytes, s>>>(pointer_of<int>(offsets), counts, int(chunks), e, cap);
    if (n)
        place_kernel<<<unsigned(ceil_div(n, THREADS)), THREADS, 0, s>>>(
            pointer_of<int>(source), rows_of<int>(position), pointer_of<const int>(offsets), number, counts,
            rows_of<const int>(choice), int(n), K, e, cap);
    check_launch("moe_sort");
}

/// A warp for each row of the result, N elements a lane at a time.
constexpr int ROWS = 4;
template <class X, int N> __global__ void __launch_bounds__(ROWS* WARP)
    permute_kernel(Rows<X> y, Rows<const X> x, const int* source, int rows, int C, int K) {
    int n = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (n >= rows) return;
    int s = source[n];
    const X* from = s < 0 ? nullptr : x(s / K);
    for (int c = lane * N; c < C; c += WARP * N)
        *reinterpret_cast<Vec<X, N>*>(y(n) + c) =
            from ? *reinterpret_cast<const Vec<X, N>*>(from + c) : Vec<X, N>{};
}

/// y[t] = sum_k (weight[t, k] or 1) x[position[t, k]], written or added.
template <class X, int N, bool WEIGHTED> __global__ void __launch_bounds__(ROWS* WARP)
    gather_sum_kernel(Rows<X> y, Rows<const X> x, Rows<const float> weight, Rows<const int> position, int T,
                      int C, int K, bool add) {
    int t = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (t >= T) return;
    for (int c = lane * N; c < C; c += WARP * N) {
        Floats<N> sum{};
        for (int k = 0; k < K; k++) {
            int n = position(t)[k];
            if (n < 0) continue;
            float w = WEIGHTED ? weight(t)[k] : 1.f;
            Floats<N> v = load<N>(x(n) + c);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += __fmul_rn(w, v[i]);
        }
        put<N>(y(t) + c, sum, add);
    }
}

template <class X, int N> __global__ void __launch_bounds__(ROWS* WARP)
    scatter_kernel(Rows<X> dx, Rows<const X> dy, Rows<const float> weight, const int* source, int rows, int C,
                   int K, bool add) {
    int n = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (n >= rows) return;
    int s = source[n], t = s < 0 ? 0 : s / K;
    float w = s < 0 ? 0.f : weight(t)[s % K];
    for (int c = lane * N; c < C; c += WARP * N) {
        Floats<N> v{};
        if (s >= 0) v = load<N>(dy(t) + c);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= w;
        put<N>(dx(n) + c, v, add);
    }
}

/// dweight[t, k] = <dy[t], x[position[t, k]]>: a warp for each choice, in one order however the elements
/// move.
template <class X> __global__ void __launch_bounds__(ROWS* WARP)
    weight_gradient_kernel(Rows<float> dweight, Rows<const X> dy, Rows<const X> x, Rows<const int> position,
                           int n, int C, int K, bool add, bool vector) {
    constexpr int N = VEC<X>;
    int i = int(blockIdx.x) * ROWS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (i >= n) return;
    int t = i / K, row = position(t)[i % K];
    float sum = 0;
    for (int c = lane * N; row >= 0 && c < C; c += WARP * N) {
        Floats<N> d = floats(load_part<N>(dy(t), c, C, vector)),
                  v = floats(load_part<N>(x(row), c, C, vector));
#pragma unroll
        for (int j = 0; j < N; j++) sum += d[j] * v[j];
    }
    sum = warp_sum(sum);
    if (lane == 0) put<1>(dweight(t) + i % K, Floats<1>{sum}, add);
}

unsigned row_blocks(int64_t rows) { return unsigned(ceil_div(rows, ROWS)); }

void permute_forward_launch(Out y, In x, In source, In, int64_t K) {
    if (!y.rows()) return;
    by_width(
        x.dtype,
        [&]<class X, int N> {
            permute_kernel<X, N><<<row_blocks(y.rows()), ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<X>(y), rows_of<const X>(x), pointer_of<const int>(source), int(y.rows()),
                int(y.cols()), int(K));
        },
        y, x);
    check_launch("permute");
}

void permute_backward_launch(Acc dx, In dy, In position) {
    if (!dx || !dx.rows()) return;
    by_width(
        dy.dtype,
        [&]<class X, int N> {
            gather_sum_kernel<X, N, false><<<row_blocks(dx.rows()), ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<X>(dx), rows_of<const X>(dy), {}, rows_of<const int>(position), int(dx.rows()),
                int(dy.cols()), int(position.cols()), dx.add);
        },
        dx, dy);
    check_launch("permute_backward");
}

void unpermute_forward_launch(Out y, In x, In weight, In position) {
    if (!y.rows()) return;
    by_width(
        x.dtype,
        [&]<class X, int N> {
            gather_sum_kernel<X, N, true><<<row_blocks(y.rows()), ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<X>(y), rows_of<const X>(x), rows_of<const float>(weight),
                rows_of<const int>(position), int(y.rows()), int(y.cols()), int(position.cols()), false);
        },
        y, x);
    check_launch("unpermute");
}

void unpermute_backward_launch(Acc dx, Acc dweight, In dy, In x, In weight, In source, In position, In) {
    int C = int(x.cols()), K = int(position.cols());
    if (dx && x.rows())
        by_width(
            x.dtype,
            [&]<class X, int N> {
                scatter_kernel<X, N><<<row_blocks(x.rows()), ROWS * WARP, 0, cuda_stream()>>>(
                    rows_of<X>(dx), rows_of<const X>(dy), rows_of<const float>(weight),
                    pointer_of<const int>(source), int(x.rows()), C, K, dx.add);
            },
            dx, dy);
    if (dweight && position.numel())
        cuda_dispatch(x.dtype, [&]<class X> {
            weight_gradient_kernel<X><<<row_blocks(position.numel()), ROWS * WARP, 0, cuda_stream()>>>(
                rows_of<float>(dweight), rows_of<const X>(dy), rows_of<const X>(x),
                rows_of<const int>(position), int(position.numel()), C, K, dweight.add,
                all_move_by(VEC<X>, dy, x));
        });
    check_launch("unpermute_backward");
}

OnCuda on_sort{moe_sort_forward, sort, sort_workspace}, on_permute{permute_forward, permute_forward_launch},
    on_permute_back{permute_backward, permute_backward_launch},
    on_unpermute{unpermute_forward, unpermute_forward_launch},
    on_unpermute_back{unpermute_backward, unpermute_backward_launch};

} // namespace

} // namespace nvl
