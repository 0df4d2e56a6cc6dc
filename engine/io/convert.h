// Element conversion between what files store and what the engine computes with.
#pragma once
#include "engine/io/safetensors.h"

namespace nvl {

/// Elements [begin, begin + n) of t as `to`; StoredType covers every Dtype and i64, which writers use.
void convert_range(const StoredTensor& t, StoredType to, int64_t begin, int64_t n, void* out);

} // namespace nvl
