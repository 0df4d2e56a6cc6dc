// Small kernels for the tests of the runtime's look-alike.
#pragma once
#include <cuda_runtime_api.h>

struct Pair {
    float* to;
    int n;
};

/// y[i] = a * x[i] + y[i]
void launch_axpy(float* y, const float* x, float a, int n, cudaStream_t stream = nullptr);
/// x[i] = value
void launch_fill(float* x, float value, int n, cudaStream_t stream = nullptr);
/// Adds the device variable `bias` and constant[i % 4], i < n, through a struct parameter.
void launch_symbols(Pair pair, cudaStream_t stream = nullptr);
/// Reverses n floats through dynamic shared memory of `bytes`, in one block of `threads`.
void launch_reverse(float* x, int n, int threads, size_t bytes, cudaStream_t stream = nullptr);
const void* reverse_kernel();
/// __launch_bounds__(64)
void launch_bounded(float* x, int threads, cudaStream_t stream = nullptr);
const void* bounded_kernel();
/// Keeps more than 100 registers alive.
void launch_registers(float* x, int threads, cudaStream_t stream = nullptr);
const void* registers_kernel();
const void* bias_symbol();
const void* constant_symbol();
