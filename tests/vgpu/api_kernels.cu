#include "tests/vgpu/api_kernels.h"

static __device__ float bias[2] = {100, 200};
static __constant__ float constant[4];

static __global__ void axpy(float* y, const float* x, float a, int n) {
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] = a * x[i] + y[i];
}

static __global__ void fill(float* x, float value, int n) {
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] = value;
}

static __global__ void symbols(Pair pair) {
    int i = int(threadIdx.x);
    if (i < pair.n) pair.to[i] = bias[1] + constant[i % 4];
}

static __global__ void reverse(float* x, int n) {
    extern __shared__ float values[];
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) values[i] = x[i];
    __syncthreads();
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) x[i] = values[n - 1 - i];
}

static __global__ void __launch_bounds__(64) bounded(float* x) { x[threadIdx.x] = 1; }

static __global__ void registers(float* x) {
    float r[128];
#pragma unroll
    for (int i = 0; i < 128; i++)
        asm volatile("ld.global.f32 %0, [%1];" : "=f"(r[i]) : "l"(x + threadIdx.x + i * 1024));
    __syncthreads(); // every load is before every store
#pragma unroll
    for (int i = 0; i < 128; i++)
        asm volatile("st.global.f32 [%0], %1;" ::"l"(x + threadIdx.x + i * 1024), "f"(r[127 - i]));
}

void launch_axpy(float* y, const float* x, float a, int n, cudaStream_t stream) {
    axpy<<<(n + 63) / 64, 64, 0, stream>>>(y, x, a, n);
}
void launch_fill(float* x, float value, int n, cudaStream_t stream) {
    fill<<<(n + 63) / 64, 64, 0, stream>>>(x, value, n);
}
void launch_symbols(Pair pair, cudaStream_t stream) { symbols<<<1, 32, 0, stream>>>(pair); }
void launch_reverse(float* x, int n, int threads, size_t bytes, cudaStream_t stream) {
    reverse<<<1, threads, bytes, stream>>>(x, n);
}
const void* reverse_kernel() { return reinterpret_cast<const void*>(&reverse); }
void launch_bounded(float* x, int threads, cudaStream_t stream) { bounded<<<1, threads, 0, stream>>>(x); }
const void* bounded_kernel() { return reinterpret_cast<const void*>(&bounded); }
void launch_registers(float* x, int threads, cudaStream_t stream) { registers<<<1, threads, 0, stream>>>(x); }
const void* registers_kernel() { return reinterpret_cast<const void*>(&registers); }
const void* bias_symbol() { return &bias; }
const void* constant_symbol() { return &constant; }
