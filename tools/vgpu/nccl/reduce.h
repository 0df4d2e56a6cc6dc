// Element arithmetic of collectives.
#pragma once
#include <nccl.h>

#include <cstddef>
#include <vector>

namespace vgpu::nccl {

/// 0 for types that are not known here (fp8).
size_t bytes_of(ncclDataType_t);
const char* name_of(ncclDataType_t);
const char* name_of(ncclRedOp_t);

/// to[i] = op over ranks of from[rank][i], one rank after the other in the order of `from`, rounded to the
/// type after each step, as a ring does it; ncclAvg divides at the end. `to` may be one of `from`.
void reduce(void* to, const std::vector<const void*>& from, size_t count, ncclDataType_t, ncclRedOp_t);

} // namespace vgpu::nccl
