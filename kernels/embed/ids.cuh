// Ids on the device. A kernel cannot throw: an id outside the table stops it, and the next wait for the
// device fails.
#pragma once
#include "kernels/tile/types.cuh"

namespace nvl {

struct Ids {
    const int* data;
    int64_t stride, V;
    __device__ __forceinline__ int operator()(int64_t t) const {
        int id = data[t * stride];
        if (unsigned(id) >= V) __trap();
        return id;
    }
};
inline Ids ids_of(const View& ids, int64_t V) { return {pointer_of<const int>(ids), ids.stride[0], V}; }

} // namespace nvl
