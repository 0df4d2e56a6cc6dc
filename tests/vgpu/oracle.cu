#include "tests/vgpu/oracle.h"

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

} // namespace

void launch_mma_cases(int cases, const uint32_t* a, const uint32_t* b, float* d) {
    mma_cases<<<cases, 32>>>(reinterpret_cast<const uint4*>(a), reinterpret_cast<const uint2*>(b),
                             reinterpret_cast<float4*>(d));
}

void launch_ldmatrix(const uint16_t* tile, const int* order, uint32_t* out) {
    ldmatrix_kernel<<<1, 32>>>(reinterpret_cast<const uint4*>(tile), order, reinterpret_cast<uint4*>(out));
}
