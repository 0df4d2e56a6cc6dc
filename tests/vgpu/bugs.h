// Kernels with a bug each, and their clean twins. The line that must be reported carries the comment "@name".
#pragma once
#include <vector>

#include <cuda_runtime.h>

#include "tools/vgpu/report.h"

struct Buffers {
    float *x, *y; // 4096 floats each, all written
    float* u;     // 4096 floats that nobody has written
    float* nothing = nullptr;
};
constexpr int FLOATS = 4096;

struct KernelBug {
    const char* name;
    vgpu::Fault fault;
    void (*launch)(bool bug, const Buffers&);
};
const std::vector<KernelBug>& kernel_bugs();

// For bugs of the host.
void launch_copy(float* to, const float* from, cudaStream_t = nullptr, int blocks = 1, int threads = 128);
cudaError_t launch_large_shared(bool with_attribute);
void launch_float_atomics(float* sum, const float* x); // the order of additions is nobody's
void launch_banks(bool swizzled, float* y);
void launch_strided(int stride, const float* x, float* y);

// d (16 x 8 f32) = a (16 x 16 bf16) b (16 x 8 bf16), all row-major, by ldmatrix and mma; mutants of the asm.
enum class Mutant { none, a_rows_swapped, a_halves_swapped, b_swapped, b_not_transposed, c_swapped };
void launch_mma(Mutant, float* d, const void* a, const void* b);
