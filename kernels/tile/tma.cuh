// Bulk copies by tensor map (TMA) and the barriers in shared memory that they complete.  sm_90 and newer.
//
//   barrier_init(full, 1); barrier_init(empty, consumers); fence_barriers(); __syncthreads();
//   producer, one thread:  barrier_wait(empty, phase ^ 1); barrier_expect(full, bytes); copy_box(...);
//   consumers:             barrier_wait(full, phase); ...; barrier_arrive(empty);
// `phase` starts at 0 and flips each time the slots have been gone through once.
#pragma once
#include <cuda.h>

#include <cstdint>

namespace nvl {

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// Makes fresh barriers known to the copy engine; a __syncthreads() makes them known to the block.
__device__ __forceinline__ void fence_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and lets the phase wait for so many bytes besides.
__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
/// Until the phase of this parity is complete.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, int parity) {
    asm volatile("{\n\t.reg .pred done;\n\t"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                 "@!done bra again;\n\t}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/// The box at (inner, outer) of a matrix; what lies beyond it is zero, and counts as copied.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap& map, int inner, int outer,
                                         uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(&map), "r"(inner), "r"(outer), "r"(barrier)
                 : "memory");
}

/// Registers of a warpgroup's threads, given up or asked for.
template <int COUNT> __device__ __forceinline__ void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> __device__ __forceinline__ void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

} // namespace nvl
