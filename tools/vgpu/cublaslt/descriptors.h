// The contents of cuBLASLt's opaque descriptors. The library declares their size only.
#pragma once
#include <cublasLt.h>

namespace vgpu::cublaslt {

struct MatmulDesc {
    int32_t compute, scale, pointer_mode, transa, transb, transc, fill;
    uint32_t epilogue;
    uint64_t bias, aux;
    int64_t bias_stride, aux_ld, aux_stride;
    int32_t aux_type, bias_type, sm_target;
    int8_t fast_accumulation;
};
struct Layout {
    uint32_t type;
    int32_t order;
    uint64_t rows, cols;
    int64_t ld;
    int64_t batch_stride;
    int32_t batch;
};
struct Preference {
    uint64_t workspace;
    uint32_t search_mode, reductions, align[4]; // A, B, C, D
    float waves;
    uint64_t implementations;
};
/// What the heuristic promises and was promised.
struct Algo {
    uint32_t magic;
    uint32_t align[4];
    uint64_t workspace;
    uint64_t problem; // hash of descriptor and layouts: an algorithm fits the problem it was asked for
};
constexpr uint32_t ALGO_MAGIC = 0x76677075;

template <class X, class Opaque> X* inside(Opaque* opaque) {
    static_assert(sizeof(X) <= sizeof(Opaque));
    return reinterpret_cast<X*>(opaque);
}
template <class X, class Opaque> const X* inside(const Opaque* opaque) {
    static_assert(sizeof(X) <= sizeof(Opaque));
    return reinterpret_cast<const X*>(opaque);
}

} // namespace vgpu::cublaslt
