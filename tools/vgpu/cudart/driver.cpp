// The functions of the driver that programs fetch through the runtime: cuTensorMapEncodeTiled, with the rules
// that its documentation gives.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstring>

#include "tools/vgpu/cudart/runtime.h"
#include "tools/vgpu/machine/tensor_map.h"

using namespace vgpu;
using namespace vgpu::cuda;

namespace {

[[noreturn]] void no(const std::string& why) { refuse(cudaErrorInvalidValue, "%s", why.c_str()); }

uint8_t bytes_of(CUtensorMapDataType t) {
    switch (t) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32: return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
    default: no("element type " + std::to_string(int(t)) + " is not known here");
    }
}

bool is_float(CUtensorMapDataType t) {
    return t == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || t == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ||
           t == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 || t == CU_TENSOR_MAP_DATA_TYPE_FLOAT64;
}

uint8_t swizzle_bytes(CUtensorMapSwizzle s) {
    switch (s) {
    case CU_TENSOR_MAP_SWIZZLE_NONE: return 0;
    case CU_TENSOR_MAP_SWIZZLE_32B: return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B: return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B: return 128;
    default: no("swizzle " + std::to_string(int(s)) + " is not known here");
    }
}

void fill_dimension(TensorMap& m, int i, uint64_t extent, uint64_t stride, uint32_t box, uint32_t step) {
    std::string dimension = "dimension " + std::to_string(i);
    if (extent == 0 || extent > 1ull << 32)
        no(dimension + " has " + std::to_string(extent) + " elements: 1 to 2^32");
    if (i > 0 && (stride % 16 || stride >= 1ull << 40))
        no(dimension + " has a stride of " + std::to_string(stride) + " bytes: a multiple of 16 below 2^40");
    if (box == 0 || box > 256) no(dimension + " has a box of " + std::to_string(box) + ": 1 to 256");
    if (step == 0 || step > 8)
        no(dimension + " has an element stride of " + std::to_string(step) + ": 1 to 8");
    m.extent[i] = extent, m.box[i] = uint16_t(box), m.step[i] = uint8_t(i ? step : 1);
    if (i > 0) m.stride[i - 1] = stride;
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* extent, const cuuint64_t* stride, const cuuint32_t* box,
                      const cuuint32_t* step, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    cudaError_t status = call("cuTensorMapEncodeTiled", [&](Runtime& r) {
        if (r.options.arch < 90) no("tensor maps need sm_90");
        if (reinterpret_cast<uint64_t>(map) % 64) no("the map is not aligned to 64 bytes");
        if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) no("interleaved layouts are not known here");
        if (rank < 1 || rank > 5) no("rank " + std::to_string(rank) + ": 1 to 5");
        TensorMap m;
        m.address = reinterpret_cast<uint64_t>(address);
        if (m.address % 16) no("the tensor is not aligned to 16 bytes");
        if (!r.owner(m.address)) no("the tensor is not on a device");
        m.rank = uint8_t(rank), m.element = bytes_of(type), m.format = uint8_t(type),
        m.swizzle = swizzle_bytes(swizzle);
        for (int i = 0; i < int(rank); i++)
            fill_dimension(m, i, extent[i], i ? stride[i - 1] : 0, box[i], step[i]);
        uint32_t inner = box[0] * m.element;
        if (inner % 16) no("the box is " + std::to_string(inner) + " bytes wide: a multiple of 16");
        if (m.swizzle && inner > m.swizzle)
            no("the box is " + std::to_string(inner) + " bytes wide, more than the swizzle of " +
               std::to_string(m.swizzle));
        m.nan_outside = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
        if (m.nan_outside && !is_float(type)) no("NaN outside of a tensor of integers");
        static_assert(sizeof m == sizeof *map);
        std::memcpy(map, &m, sizeof m);
    });
    return status == cudaSuccess ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

cudaError_t entry_point(const char* name, void** function, cudaDriverEntryPointQueryResult* result) {
    return call("cudaGetDriverEntryPoint", [&](Runtime&) {
        bool known = std::strcmp(name, "cuTensorMapEncodeTiled") == 0;
        *function = known ? reinterpret_cast<void*>(&encode_tiled) : nullptr;
        if (result) *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
        if (!known && !result) refuse_quietly(cudaErrorSymbolNotFound, "%s is not known here", name);
    });
}

} // namespace

extern "C" {

cudaError_t cudaGetDriverEntryPoint(const char* name, void** function, unsigned long long,
                                    cudaDriverEntryPointQueryResult* result) {
    return entry_point(name, function, result);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    return entry_point(name, function, result);
}

} // extern "C"
