#include "tools/vgpu/cublaslt/descriptors.h"

#include <cstring>

using namespace vgpu;
using namespace vgpu::cublaslt;

namespace {

struct Field {
    void* data;
    size_t bytes;
};
template <class X> Field field(X& x) { return {&x, sizeof x}; }

Field field_of(cublasLtMatmulDesc_t opaque, cublasLtMatmulDescAttributes_t a) {
    MatmulDesc& d = *inside<MatmulDesc>(opaque);
    switch (a) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return field(d.compute);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return field(d.scale);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return field(d.pointer_mode);
    case CUBLASLT_MATMUL_DESC_TRANSA: return field(d.transa);
    case CUBLASLT_MATMUL_DESC_TRANSB: return field(d.transb);
    case CUBLASLT_MATMUL_DESC_TRANSC: return field(d.transc);
    case CUBLASLT_MATMUL_DESC_FILL_MODE: return field(d.fill);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return field(d.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return field(d.bias);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE: return field(d.bias_stride);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return field(d.aux);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return field(d.aux_ld);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE: return field(d.aux_stride);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: return field(d.aux_type);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return field(d.bias_type);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET: return field(d.sm_target);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM: return field(d.fast_accumulation);
    default: return {};
    }
}

Field field_of(cublasLtMatrixLayout_t opaque, cublasLtMatrixLayoutAttribute_t a) {
    Layout& l = *inside<Layout>(opaque);
    switch (a) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return field(l.type);
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return field(l.order);
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return field(l.rows);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return field(l.cols);
    case CUBLASLT_MATRIX_LAYOUT_LD: return field(l.ld);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return field(l.batch);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return field(l.batch_stride);
    default: return {};
    }
}

Field field_of(cublasLtMatmulPreference_t opaque, cublasLtMatmulPreferenceAttributes_t a) {
    Preference& p = *inside<Preference>(opaque);
    switch (a) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE: return field(p.search_mode);
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return field(p.workspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return field(p.reductions);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return field(p.align[0]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return field(p.align[1]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return field(p.align[2]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return field(p.align[3]);
    case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT: return field(p.waves);
    case CUBLASLT_MATMUL_PREF_IMPL_MASK: return field(p.implementations);
    default: return {};
    }
}

template <class Opaque, class Attribute>
cublasStatus_t put(Opaque opaque, Attribute a, const void* from, size_t bytes) {
    if (!opaque || !from) return CUBLAS_STATUS_INVALID_VALUE;
    Field f = field_of(opaque, a);
    if (!f.data) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (bytes != f.bytes) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(f.data, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque, class Attribute>
cublasStatus_t fetch(Opaque opaque, Attribute a, void* to, size_t bytes, size_t* written) {
    if (!opaque || (bytes == 0 && !written) || (bytes && !to)) return CUBLAS_STATUS_INVALID_VALUE;
    Field f = field_of(const_cast<std::remove_const_t<std::remove_pointer_t<Opaque>>*>(opaque), a);
    if (!f.data) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (bytes && bytes != f.bytes) return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes) std::memcpy(to, f.data, bytes);
    if (written) *written = f.bytes;
    return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque, class Init> cublasStatus_t create(Opaque** made, Init init) {
    if (!made) return CUBLAS_STATUS_INVALID_VALUE;
    *made = new Opaque;
    return init(*made);
}

template <class Opaque> cublasStatus_t destroy(Opaque* opaque) {
    if (!opaque) return CUBLAS_STATUS_INVALID_VALUE;
    delete opaque;
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

extern "C" {

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t opaque, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
    if (size < sizeof *opaque) return CUBLAS_STATUS_ALLOC_FAILED;
    std::memset(opaque, 0, sizeof *opaque);
    MatmulDesc& d = *inside<MatmulDesc>(opaque);
    d.compute = compute, d.scale = scale;
    d.transa = d.transb = d.transc = CUBLAS_OP_N;
    d.fill = CUBLAS_FILL_MODE_FULL;
    d.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    d.aux_type = d.bias_type = -1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    return create(made,
                  [&](auto* d) { return cublasLtMatmulDescInit_internal(d, sizeof *d, compute, scale); });
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return destroy(d); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a,
                                              const void* from, size_t bytes) {
    return put(d, a, from, bytes);
}
cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a,
                                              void* to, size_t bytes, size_t* written) {
    return fetch(d, a, to, bytes, written);
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t opaque, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld) {
    if (size < sizeof *opaque) return CUBLAS_STATUS_ALLOC_FAILED;
    std::memset(opaque, 0, sizeof *opaque);
    Layout& l = *inside<Layout>(opaque);
    l.type = type, l.order = CUBLASLT_ORDER_COL, l.rows = rows, l.cols = cols, l.ld = ld, l.batch = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    return create(
        made, [&](auto* l) { return cublasLtMatrixLayoutInit_internal(l, sizeof *l, type, rows, cols, ld); });
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return destroy(l); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a,
                                                const void* from, size_t bytes) {
    return put(l, a, from, bytes);
}
cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a,
                                                void* to, size_t bytes, size_t* written) {
    return fetch(l, a, to, bytes, written);
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t opaque, size_t size) {
    if (size < sizeof *opaque) return CUBLAS_STATUS_ALLOC_FAILED;
    std::memset(opaque, 0, sizeof *opaque);
    Preference& p = *inside<Preference>(opaque);
    for (uint32_t& a : p.align) a = 256;
    p.reductions = CUBLASLT_REDUCTION_SCHEME_MASK, p.implementations = ~0ull;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
    return create(made, [&](auto* p) { return cublasLtMatmulPreferenceInit_internal(p, sizeof *p); });
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return destroy(p); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a, const void* from,
                                                    size_t bytes) {
    return put(p, a, from, bytes);
}
cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a, void* to,
                                                    size_t bytes, size_t* written) {
    return fetch(p, a, to, bytes, written);
}

} // extern "C"
