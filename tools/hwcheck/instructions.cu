#include "tools/hwcheck/instructions.h"

#include "kernels/tile/pipeline.cuh"

namespace {

__global__ void mma_cases(const uint4* a, const uint2* b, float4* d) {
    int at = blockIdx.x * 32 + threadIdx.x;
    uint4 x = a[at];
    uint2 y = b[at];
    float4 c = make_float4(0, 0, 0, 0);
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c.x), "+f"(c.y), "+f"(c.z), "+f"(c.w)
                 : "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w), "r"(y.x), "r"(y.y));
    d[at] = c;
}

template <bool TRANS> __device__ void load(uint32_t from, uint4* out) {
    uint4 r = make_uint4(0, 0, 0, 0);
    if constexpr (TRANS) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r.x) : "r"(from));
        out[0] = r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r.x), "=r"(r.y)
                     : "r"(from));
        out[32] = r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                     : "r"(from));
        out[64] = r;
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r.x) : "r"(from));
        out[0] = r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r.x), "=r"(r.y)
                     : "r"(from));
        out[32] = r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                     : "r"(from));
        out[64] = r;
    }
}

__global__ void ldmatrix_kernel(const uint4* tile, const int* order, uint4* out) {
    __shared__ uint4 rows[32];
    int lane = threadIdx.x;
    rows[order[lane]] = tile[lane];
    __syncwarp();
    uint32_t from = uint32_t(__cvta_generic_to_shared(&rows[order[lane]]));
    load<false>(from, out + lane);
    load<true>(from, out + 96 + lane);
}

__global__ void shuffles(int* out) {
    int lane = threadIdx.x, x = 100 + lane;
    constexpr uint32_t ALL = 0xffffffff;
    int r[] = {__shfl_sync(ALL, x, lane * 7 + 3), __shfl_sync(ALL, x, lane * 7 + 3, 8),
               __shfl_up_sync(ALL, x, 3),         __shfl_up_sync(ALL, x, 1, 16),
               __shfl_down_sync(ALL, x, 5),       __shfl_down_sync(ALL, x, 2, 8),
               __shfl_xor_sync(ALL, x, 9),        __shfl_xor_sync(ALL, x, 9, 8)};
#pragma unroll
    for (int i = 0; i < 8; i++) out[i * 32 + lane] = r[i];
}

__global__ void copies(const uint8_t* from, uint4* out, uint32_t* words) {
    __shared__ uint4 wide[32];
    __shared__ uint32_t narrow[32];
    int lane = threadIdx.x;
    wide[lane] = make_uint4(0xaaaaaaaa, 0xaaaaaaaa, 0xaaaaaaaa, 0xaaaaaaaa);
    narrow[lane] = 0xaaaaaaaa;
    __syncwarp();
    nvl::copy16(nvl::shared_address(&wide[lane]), from + lane * 16, lane < 16 ? lane : 16);
    nvl::copy4(nvl::shared_address(&narrow[lane]), from + lane * 16, lane & 1);
    nvl::copy_commit();
    nvl::copy_wait<0>();
    out[lane] = wide[lane];
    words[lane] = narrow[lane];
}

template <Approximation F> __global__ void approximation(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float r;
    if constexpr (F == Approximation::ex2) asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x[i]));
    if constexpr (F == Approximation::lg2) asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x[i]));
    if constexpr (F == Approximation::rcp) asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x[i]));
    if constexpr (F == Approximation::rsqrt) asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x[i]));
    if constexpr (F == Approximation::tanh) asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(x[i]));
    y[i] = r;
}

constexpr int THREADS = 256, UNROLL = 4;

/// f(i) for every i < n that is this thread's, UNROLL of them in flight.
template <class F> __device__ __forceinline__ void each(int64_t n, F f) {
    int64_t step = int64_t(gridDim.x) * THREADS, i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    for (; i + (UNROLL - 1) * step < n; i += UNROLL * step) {
#pragma unroll
        for (int k = 0; k < UNROLL; k++) f(i + k * step);
    }
    for (; i < n; i += step) f(i);
}

__global__ void __launch_bounds__(THREADS) read(const uint4* __restrict__ from, int64_t n, uint32_t* sums) {
    __shared__ uint32_t parts[THREADS / 32];
    uint32_t sum = 0;
    each(n, [&](int64_t i) {
        uint4 v = from[i];
        sum += v.x + v.y + v.z + v.w;
    });
    for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(0xffffffff, sum, d);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    sum = 0;
    for (int i = 0; i < THREADS / 32; i++) sum += parts[i];
    sums[blockIdx.x] = sum;
}
__global__ void __launch_bounds__(THREADS) write(uint4* to, int64_t n, uint32_t value) {
    each(n, [&](int64_t i) { to[i] = make_uint4(value, value, value, value); });
}
__global__ void __launch_bounds__(THREADS)
    copy(uint4* __restrict__ to, const uint4* __restrict__ from, int64_t n) {
    each(n, [&](int64_t i) { to[i] = from[i]; });
}

} // namespace

void launch_shuffles(int* out) { shuffles<<<1, 32>>>(out); }
void launch_copies(const uint8_t* from, uint8_t* out) {
    copies<<<1, 32>>>(from, reinterpret_cast<uint4*>(out), reinterpret_cast<uint32_t*>(out + 512));
}

void launch_approximation(Approximation f, const float* x, float* y, int n) {
    auto kernel = f == Approximation::ex2     ? approximation<Approximation::ex2>
                  : f == Approximation::lg2   ? approximation<Approximation::lg2>
                  : f == Approximation::rcp   ? approximation<Approximation::rcp>
                  : f == Approximation::rsqrt ? approximation<Approximation::rsqrt>
                                              : approximation<Approximation::tanh>;
    kernel<<<(n + 255) / 256, 256>>>(x, y, n);
}

void launch_read(const uint32_t* from, int64_t n, int blocks, uint32_t* sums, void* stream) {
    read<<<blocks, THREADS, 0, cudaStream_t(stream)>>>(reinterpret_cast<const uint4*>(from), n, sums);
}
void launch_write(uint32_t* to, int64_t n, uint32_t value, int blocks, void* stream) {
    write<<<blocks, THREADS, 0, cudaStream_t(stream)>>>(reinterpret_cast<uint4*>(to), n, value);
}
void launch_copy(uint32_t* to, const uint32_t* from, int64_t n, int blocks, void* stream) {
    copy<<<blocks, THREADS, 0, cudaStream_t(stream)>>>(reinterpret_cast<uint4*>(to),
                                                       reinterpret_cast<const uint4*>(from), n);
}

void launch_mma_cases(int cases, const uint32_t* a, const uint32_t* b, float* d) {
    mma_cases<<<cases, 32>>>(reinterpret_cast<const uint4*>(a), reinterpret_cast<const uint2*>(b),
                             reinterpret_cast<float4*>(d));
}

void launch_ldmatrix(const uint16_t* tile, const int* order, uint32_t* out) {
    ldmatrix_kernel<<<1, 32>>>(reinterpret_cast<const uint4*>(tile), order, reinterpret_cast<uint4*>(out));
}
