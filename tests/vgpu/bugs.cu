#include "tests/vgpu/bugs.h"

#include <cstdint>

#include <cuda_bf16.h>

namespace {

using vgpu::Fault;

__device__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
__device__ void copy16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ void wait_all() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

// Shared memory --------------------------------------------------------------------------------------------

template <bool BUG> __global__ void barrier_missing(Buffers b) {
    __shared__ float s[64];
    s[threadIdx.x] = b.x[threadIdx.x];
    if (!BUG) __syncthreads();
    b.y[threadIdx.x] = s[63 - threadIdx.x]; // @barrier_missing
}

template <bool BUG> __global__ void trailing_barrier_missing(Buffers b) {
    __shared__ float s[64];
    float sum = 0;
    for (int i = 0; i < 3; i++) {
        s[threadIdx.x] = b.x[64 * i + threadIdx.x]; // @trailing_barrier_missing
        __syncthreads();
        sum += s[63 - threadIdx.x];
        if (!BUG) __syncthreads();
    }
    b.y[threadIdx.x] = sum;
}

template <bool BUG> __global__ void warp_barrier_missing(Buffers b) {
    __shared__ volatile float s[32];
    s[threadIdx.x] = b.x[threadIdx.x];
    if (!BUG) __syncwarp();
    b.y[threadIdx.x] = s[31 - threadIdx.x]; // @warp_barrier_missing
}

template <bool BUG> __global__ void warp_barrier_of_too_few(Buffers b) {
    __shared__ volatile float s[32];
    unsigned mask = BUG ? (threadIdx.x < 16 ? 0xffffu : 0xffff0000u) : ~0u;
    s[threadIdx.x] = b.x[threadIdx.x];
    __syncwarp(mask);
    b.y[threadIdx.x] = s[31 - threadIdx.x]; // @warp_barrier_of_too_few
}

template <bool BUG> __global__ void shuffle_is_no_barrier(Buffers b) {
    __shared__ volatile float s[32];
    s[threadIdx.x] = b.x[threadIdx.x];
    float z = __shfl_xor_sync(~0u, float(threadIdx.x), 1);
    if (!BUG) __syncwarp();
    b.y[threadIdx.x] = z + s[31 - threadIdx.x]; // @shuffle_is_no_barrier
}

template <bool BUG> __global__ void row_never_written(Buffers b) {
    __shared__ float s[4][32];
    for (int row = 0; row < (BUG ? 3 : 4); row++) s[row][threadIdx.x] = b.x[threadIdx.x];
    __syncthreads();
    float sum = 0;
    for (int row = 0; row < 4; row++) sum += s[row][(threadIdx.x + 1) % 32]; // @row_never_written
    b.y[threadIdx.x] = sum;
}

template <bool BUG> __global__ void shared_index(Buffers b) {
    extern __shared__ float dynamic[];
    dynamic[threadIdx.x] = b.x[threadIdx.x];
    __syncthreads();
    b.y[threadIdx.x] = dynamic[threadIdx.x + (BUG ? 1 : 0)]; // @shared_index
}

template <bool BUG> __global__ void lanes_disagree(Buffers b) {
    __shared__ float s[2];
    s[threadIdx.x / 16] = BUG ? b.x[threadIdx.x] : b.x[threadIdx.x / 16]; // @lanes_disagree
    __syncthreads();
    b.y[threadIdx.x] = s[threadIdx.x / 16];
}

template <bool BUG> __global__ void wrong_named_barrier(Buffers b) {
    __shared__ float s[64]; // warps 0, 1 and warps 2, 3 each exchange through their half
    int half = threadIdx.x / 64, t = threadIdx.x % 64, id = BUG ? 1 + threadIdx.x / 32 % 2 : 1 + half;
    if (half == 0) s[t] = b.x[t];
    asm volatile("bar.sync %0, 64;" ::"r"(id) : "memory");
    if (half == 0) b.y[t] = s[63 - t]; // @wrong_named_barrier
}

// Asynchronous copies --------------------------------------------------------------------------------------

template <bool BUG> __global__ void copy_not_waited(Buffers b) {
    __shared__ __align__(16) float s[128];
    copy16(&s[4 * threadIdx.x], b.x + 4 * threadIdx.x);
    commit();
    if (!BUG) wait_all();
    __syncthreads();
    b.y[threadIdx.x] = s[127 - threadIdx.x]; // @copy_not_waited
}

template <bool BUG> __global__ void copy_left_at_exit(Buffers b) {
    __shared__ __align__(16) float s[128];
    copy16(&s[4 * threadIdx.x], b.x + 4 * threadIdx.x); // @copy_left_at_exit
    commit();
    if (!BUG) wait_all();
}

template <bool BUG> __global__ void copy_over_readers(Buffers b) {
    __shared__ __align__(16) float s[256];
    s[threadIdx.x] = b.x[threadIdx.x], s[threadIdx.x + 64] = 0, s[threadIdx.x + 128] = 0,
    s[threadIdx.x + 192] = 0;
    __syncthreads();
    float z = s[63 - threadIdx.x];
    if (!BUG) __syncthreads();
    copy16(&s[4 * threadIdx.x], b.x + 4 * threadIdx.x); // @copy_over_readers
    commit();
    wait_all();
    __syncthreads();
    b.y[threadIdx.x] = z + s[threadIdx.x];
}

template <bool BUG> __global__ void waited_without_barrier(Buffers b) {
    __shared__ __align__(16) float s[256];
    copy16(&s[4 * threadIdx.x], b.x + 4 * threadIdx.x);
    commit();
    wait_all();
    if (!BUG) __syncthreads();
    b.y[threadIdx.x] = s[255 - threadIdx.x]; // @waited_without_barrier
}

template <bool BUG> __global__ void one_stage_too_few(Buffers b) {
    __shared__ __align__(16) float s[2][128]; // two stages; waits for all but one group
    copy16(&s[0][4 * threadIdx.x], b.x + 4 * threadIdx.x);
    commit();
    float sum = 0;
    for (int i = 0; i < 3; i++) {
        if (i < 2) copy16(&s[(i + 1) % 2][4 * threadIdx.x], b.x + 128 * (i + 1) + 4 * threadIdx.x);
        commit();
        if (BUG)
            asm volatile("cp.async.wait_group 2;" ::: "memory");
        else
            asm volatile("cp.async.wait_group 1;" ::: "memory");
        __syncthreads();
        sum += s[i % 2][127 - threadIdx.x]; // @one_stage_too_few
        __syncthreads();
    }
    wait_all();
    b.y[threadIdx.x] = sum;
}

// Global memory --------------------------------------------------------------------------------------------

template <bool BUG> __global__ void one_row_too_far(Buffers b) {
    int row = 31 + (BUG ? 1 : 0);
    b.y[threadIdx.x] = b.x[row * 128 + threadIdx.x]; // @one_row_too_far
}

template <bool BUG> __global__ void null_pointer(Buffers b) {
    float* p = BUG ? b.nothing : b.y;
    p[threadIdx.x] = 1; // @null_pointer
}

template <bool BUG> __global__ void never_written(Buffers b) {
    b.y[threadIdx.x] = (BUG ? b.u : b.x)[threadIdx.x]; // @never_written
}

template <bool BUG> __global__ void half_written(Buffers b) {
    auto* u = reinterpret_cast<__nv_bfloat16*>(b.u) + 2 * threadIdx.x;
    u[0] = __float2bfloat16(b.x[threadIdx.x]);
    if (!BUG) u[1] = __float2bfloat16(0.f);
    b.y[threadIdx.x] = *reinterpret_cast<volatile float*>(u); // @half_written
}

template <bool BUG> __global__ void misaligned_vector(Buffers b) {
    float4 v = *reinterpret_cast<float4*>(b.x + 4 * threadIdx.x + (BUG ? 1 : 0)); // @misaligned_vector
    b.y[threadIdx.x] = v.x + v.y + v.z + v.w;
}

template <bool BUG> __global__ void two_blocks_one_word(Buffers b) {
    b.y[BUG ? 0 : blockIdx.x] = b.x[blockIdx.x]; // @two_blocks_one_word
}

template <bool BUG> __global__ void overlapping_tiles(Buffers b) {
    int at = blockIdx.x * (BUG ? 127 : 128) + threadIdx.x; // blocks share their last column
    b.y[at] = b.x[at];                                     // @overlapping_tiles
}

template <bool BUG> __global__ void atomic_and_plain(Buffers b) {
    if (blockIdx.x == 0 && BUG)
        b.y[0] += 1; // @atomic_and_plain
    else
        atomicAdd(b.y, 1.f); // @atomic_and_plain
}

template <bool BUG> __global__ void reads_what_others_write(Buffers b) {
    int t = blockIdx.x * 64 + threadIdx.x;
    b.y[t] = (BUG ? b.y : b.x)[t ^ 64] + 1; // @reads_what_others_write
}

__device__ unsigned tickets;

template <bool BUG> __global__ void last_block_without_fence(Buffers b) {
    __shared__ bool last;
    b.y[blockIdx.x * 32 + threadIdx.x] = b.x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        if (!BUG) __threadfence();
        last = atomicAdd(&tickets, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    float sum = 0;
    for (int i = 0; i < int(gridDim.x); i++) sum += b.y[i * 32 + threadIdx.x]; // @last_block_without_fence
    b.u[threadIdx.x] = sum;
    __threadfence();
    if (threadIdx.x == 0) tickets = 0; // @last_block_without_fence
}

template <bool BUG> __global__ void flag_without_release(Buffers b) {
    unsigned* flag = &tickets;
    if (blockIdx.x == 0) {
        b.y[0] = b.x[0];
        if (!BUG) __threadfence();
        atomicExch(flag, 1);
    } else {
        while (atomicAdd(flag, 0) == 0) {
        }
        __threadfence();
        b.u[0] = b.y[0]; // @flag_without_release
        atomicExch(flag, 0);
    }
}

// Barriers and collectives ---------------------------------------------------------------------------------

template <bool BUG> __global__ void divergent_barrier(Buffers b) {
    if (!BUG) {
        __syncthreads();
    } else if (threadIdx.x < 48) { // half of warp 1 waits here, the other half there
        __syncthreads();           // @divergent_barrier
        b.y[threadIdx.x] = 1;
    } else {
        __syncthreads(); // @divergent_barrier
        b.y[threadIdx.x] = 2;
    }
}

template <bool BUG> __global__ void return_before_barrier(Buffers b) {
    if (BUG && threadIdx.x >= 40) return;
    b.y[threadIdx.x] = 1;
    __syncthreads(); // @return_before_barrier
    b.y[threadIdx.x] += 1;
}

template <bool BUG> __global__ void barrier_counts(Buffers b) {
    if (BUG) asm volatile("bar.sync 1, 96;" ::: "memory"); // @barrier_counts
    b.y[threadIdx.x] = 1;
}

template <bool BUG> __global__ void shuffle_from_absent_lane(Buffers b) {
    float z = b.x[threadIdx.x];
    if (threadIdx.x < 16) z = __shfl_xor_sync(0xffffu, z, BUG ? 16 : 8); // @shuffle_from_absent_lane
    b.y[threadIdx.x] = z;
}

// A table --------------------------------------------------------------------------------------------------

#define BUG_OF(NAME, FAULT, BLOCKS, THREADS, SHARED)                                                             \
    KernelBug {                                                                                                  \
#NAME, Fault::FAULT, [](bool bug, const Buffers& b) {                                                          \
            if (bug)                                                                                                   \
                NAME<true><<<BLOCKS, THREADS, SHARED>>>(b);                                                            \
            else                                                                                                       \
                NAME<false><<<BLOCKS, THREADS, SHARED>>>(b);                                                           \
        } \
    }

} // namespace

const std::vector<KernelBug>& kernel_bugs() {
    static const std::vector<KernelBug> list{
        BUG_OF(barrier_missing, race_shared, 1, 64, 0),
        BUG_OF(trailing_barrier_missing, race_shared, 1, 64, 0),
        BUG_OF(warp_barrier_missing, race_shared, 1, 32, 0),
        BUG_OF(warp_barrier_of_too_few, race_shared, 1, 32, 0),
        BUG_OF(shuffle_is_no_barrier, race_shared, 1, 32, 0),
        BUG_OF(row_never_written, uninitialised, 1, 32, 0),
        BUG_OF(shared_index, out_of_bounds, 1, 32, 128),
        BUG_OF(lanes_disagree, race_shared, 1, 32, 0),
        BUG_OF(wrong_named_barrier, race_shared, 1, 128, 0),
        BUG_OF(copy_not_waited, copy_not_waited, 1, 32, 0),
        BUG_OF(copy_left_at_exit, copy_not_waited, 1, 32, 0),
        BUG_OF(copy_over_readers, race_shared, 1, 64, 0),
        BUG_OF(waited_without_barrier, race_shared, 1, 64, 0),
        BUG_OF(one_stage_too_few, copy_not_waited, 1, 32, 0),
        BUG_OF(one_row_too_far, out_of_bounds, 1, 128, 0),
        BUG_OF(null_pointer, out_of_bounds, 1, 32, 0),
        BUG_OF(never_written, uninitialised, 1, 32, 0),
        BUG_OF(half_written, uninitialised, 1, 32, 0),
        BUG_OF(misaligned_vector, misaligned, 1, 32, 0),
        BUG_OF(two_blocks_one_word, race_global, 2, 1, 0),
        BUG_OF(overlapping_tiles, race_global, 4, 128, 0),
        BUG_OF(atomic_and_plain, race_global, 4, 1, 0),
        BUG_OF(reads_what_others_write, race_global, 2, 64, 0),
        BUG_OF(last_block_without_fence, race_global, 4, 32, 0),
        BUG_OF(flag_without_release, race_global, 2, 1, 0),
        BUG_OF(divergent_barrier, barrier_divergent, 1, 64, 0),
        BUG_OF(return_before_barrier, barrier_exited, 1, 64, 0),
        BUG_OF(barrier_counts, deadlock, 1, 64, 0),
        BUG_OF(shuffle_from_absent_lane, inactive_lane, 1, 32, 0),
    };
    return list;
}

// For bugs of the host
// ---------------------------------------------------------------------------------------

namespace {

__global__ void __launch_bounds__(256) copy_kernel(float* to, const float* from) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    to[i] = from[i];
}

__global__ void large_shared() {
    extern __shared__ float large[];
    large[threadIdx.x] = 1;
}

__global__ void float_atomics(float* sum, const float* x) {
    atomicAdd(sum, x[blockIdx.x * blockDim.x + threadIdx.x]);
}

// A tile of 32 rows of 128 bytes is read by columns of 16 bytes.
template <bool SWIZZLED> __global__ void banks(float* y) {
    __shared__ __align__(16) float4 tile[32][8];
    auto chunk = [](int row, int c) { return SWIZZLED ? c ^ (row % 8) : c; };
    for (int i = threadIdx.x; i < 256; i += 32) tile[i / 8][i % 8] = make_float4(0, 0, 0, 0);
    __syncwarp();
    float sum = 0;
    for (int c = 0; c < 8; c++) {
        float4 v = tile[threadIdx.x][chunk(threadIdx.x, c)];
        sum += v.x + v.y + v.z + v.w;
    }
    y[threadIdx.x] = sum;
}

__global__ void strided(int stride, const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x * stride]; }

template <Mutant M> __global__ void mma_kernel(float* d, const uint4* a, const uint4* b) {
    __shared__ __align__(16) __nv_bfloat16 sA[16][16], sB[16][8];
    int lane = threadIdx.x;
    reinterpret_cast<uint4*>(sA)[lane] = a[lane];
    if (lane < 16) reinterpret_cast<uint4*>(sB)[lane] = b[lane];
    __syncwarp();
    uint32_t ra[4], rb[2];
    // Lanes 0-7: rows 0-7 of the left half, 8-15: rows 8-15 of it, 16-31: the right half.
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3])
                 : "r"(shared_address(&sA[lane % 16][lane / 16 * 8])));
    if constexpr (M == Mutant::b_not_transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(rb[0]), "=r"(rb[1])
                     : "r"(shared_address(&sB[lane % 16][0])));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(rb[0]), "=r"(rb[1])
                     : "r"(shared_address(&sB[lane % 16][0])));
    auto swap = [](uint32_t& p, uint32_t& q) {
        uint32_t t = p;
        p = q, q = t;
    };
    if constexpr (M == Mutant::a_rows_swapped) swap(ra[0], ra[1]), swap(ra[2], ra[3]);
    if constexpr (M == Mutant::a_halves_swapped) swap(ra[0], ra[2]);
    if constexpr (M == Mutant::b_swapped) swap(rb[0], rb[1]);
    float c[4];
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%10,%10,%10,%10};"
                 : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
                 : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]), "f"(0.f));
    int row = lane / 4, column = lane % 4 * 2;
    constexpr int LOW = M == Mutant::c_swapped ? 2 : 0;
    d[row * 8 + column] = c[LOW], d[row * 8 + column + 1] = c[LOW + 1];
    d[(row + 8) * 8 + column] = c[2 - LOW], d[(row + 8) * 8 + column + 1] = c[3 - LOW];
}

} // namespace

void launch_copy(float* to, const float* from, cudaStream_t stream, int blocks, int threads) {
    copy_kernel<<<blocks, threads, 0, stream>>>(to, from);
}

cudaError_t launch_large_shared(bool with_attribute) {
    constexpr int BYTES = 96 << 10;
    if (with_attribute)
        cudaFuncSetAttribute(large_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    large_shared<<<1, 32, BYTES>>>();
    return cudaGetLastError();
}

void launch_float_atomics(float* sum, const float* x) { float_atomics<<<8, 64>>>(sum, x); }

void launch_banks(bool swizzled, float* y) {
    if (swizzled)
        banks<true><<<1, 32>>>(y);
    else
        banks<false><<<1, 32>>>(y);
}

void launch_strided(int stride, const float* x, float* y) { strided<<<1, 32>>>(stride, x, y); }

void launch_mma(Mutant m, float* d, const void* a, const void* b) {
    auto *pa = static_cast<const uint4*>(a), *pb = static_cast<const uint4*>(b);
    switch (m) {
    case Mutant::none: mma_kernel<Mutant::none><<<1, 32>>>(d, pa, pb); break;
    case Mutant::a_rows_swapped: mma_kernel<Mutant::a_rows_swapped><<<1, 32>>>(d, pa, pb); break;
    case Mutant::a_halves_swapped: mma_kernel<Mutant::a_halves_swapped><<<1, 32>>>(d, pa, pb); break;
    case Mutant::b_swapped: mma_kernel<Mutant::b_swapped><<<1, 32>>>(d, pa, pb); break;
    case Mutant::b_not_transposed: mma_kernel<Mutant::b_not_transposed><<<1, 32>>>(d, pa, pb); break;
    case Mutant::c_swapped: mma_kernel<Mutant::c_swapped><<<1, 32>>>(d, pa, pb); break;
    }
}
