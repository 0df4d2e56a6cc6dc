// What CUDA kernels (kernels/**/*.cu) know of the device they run on. Included by .cu files and by
// engine/device only: a CPU build never sees a CUDA header.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "engine/tape/kernel.h"

namespace nvl {

/// Fails with one line naming what was tried and CUDA's own words for the error.
void cuda_check(cudaError_t status, const char* what);
/// After every <<<...>>>: a launch that was refused (too many threads, too much shared memory) fails here.
void check_launch(const char* kernel);

/// The stream that kernels of this thread are launched on.
cudaStream_t cuda_stream();
/// Multiprocessors of the device in use, for grids of "a few blocks for each".
int multiprocessors();

/// Scratch memory of the step that runs now, at least 256-byte aligned; garbage before, forgotten after. The
/// step declared its size (see OnCuda), so the plan knows it; asking for more is an error.
std::byte* cuda_workspace(int64_t bytes);
template <class X> X* cuda_workspace_of(int64_t n) {
    return reinterpret_cast<X*>(cuda_workspace(n * int64_t(sizeof(X))));
}

/// Gives a kernel slot its CUDA implementation at start-up, beside the launch code in the .cu file:
///     static OnCuda k{rmsnorm_backward, rmsnorm_backward_cuda, rmsnorm_backward_workspace};
/// `workspace` tells the bytes of scratch it needs for these arguments (null: none).
struct OnCuda {
    template <class... P>
    OnCuda(Kernel<void(P...)>& slot, void (*launch)(P...), int64_t (*workspace)(P...) = nullptr) {
        slot.cuda = launch, slot.cuda_workspace = workspace;
    }
};

} // namespace nvl
