// Asynchronous copies from global to shared memory, in stages: while one stage is computed on, later ones are
// on their way.  sm_80 and newer.
//
//   for (s = 0; s < STAGES - 1; s++) { copy stage s; copy_commit(); }      an empty stage is committed too
//   for (i = 0; i < n; i++) {
//       copy_wait<STAGES - 2>();  __syncthreads();          stage i has arrived, stage i - 1 is free
//       copy stage i + STAGES - 1 into slot (i - 1) % STAGES; copy_commit();
//       compute on slot i % STAGES
//   }
//   copy_wait<0>();                                          before the memory is used for something else
#pragma once
#include <cstdint>

namespace nvl {

/// A shared-memory address as instructions want it.
__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// 16 bytes, both addresses aligned to 16. Only the first `valid` bytes are read, the rest is filled with
/// zeros: 0 reads nothing, but `from` must still be an address within the tensor's memory (or any, unread).
__device__ __forceinline__ void copy16(uint32_t to, const void* from, int valid = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid) : "memory");
}
/// 4 bytes, both addresses aligned to 4, or zeros.
__device__ __forceinline__ void copy4(uint32_t to, const void* from, bool valid = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0)
                 : "memory");
}
/// Closes a stage: what this thread copied since the last commit.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most PENDING of this thread's latest stages are on their way. Other threads' copies are
/// visible after the __syncthreads() that follows.
template <int PENDING> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

} // namespace nvl
