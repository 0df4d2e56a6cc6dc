// Numbers of the three devices that can be had: A100 (80), H100 (90), B200 (100). From NVIDIA's programming
// guide (technical specifications per compute capability) and data sheets.
#pragma once
#include "tools/vgpu/cudart/runtime.h"

namespace vgpu::cuda {

struct Model {
    int arch;
    const char* name;
    int multiprocessors, shared_per_multiprocessor, l2, bus_bits, clock_khz, memory_clock_khz;
};
const Model& model_of(int arch);

inline int multiprocessors_of(int arch) { return model_of(arch).multiprocessors; }
/// Bytes of shared memory a block may have after cudaFuncSetAttribute; 1 KiB of the multiprocessor's is
/// reserved.
inline size_t shared_optin(int arch) { return size_t(model_of(arch).shared_per_multiprocessor) - 1024; }
/// Registers are given to warps in units of 256.
int registers_of_block(int per_thread, int threads);
int blocks_per_multiprocessor(int arch, const CUkern_st::State& kernel, dim3 block, size_t dynamic_shared);

} // namespace vgpu::cuda
