#include "tools/vgpu/nccl/reduce.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "tools/vgpu/cublaslt/halves.h"

namespace vgpu::nccl {

using namespace cublaslt;

namespace {

struct Bf16 {
    using Wide = float;
    uint16_t bits;
    explicit operator float() const { return from_bf16(bits); }
    static Bf16 of(float x) { return {to_bf16(x)}; }
};
struct F16 {
    using Wide = float;
    uint16_t bits;
    explicit operator float() const { return from_f16(bits); }
    static F16 of(float x) { return {to_f16(x)}; }
};
template <class X> struct Plain {
    using Wide = X;
    X x;
    explicit operator X() const { return x; }
    static Plain of(X x) { return {x}; }
};

template <class W> W combine(ncclRedOp_t op, W a, W b) {
    switch (op) {
    case ncclProd: return W(a * b);
    case ncclMax: return std::max(a, b);
    case ncclMin: return std::min(a, b);
    default: return W(a + b); // sum, avg
    }
}

template <class X>
void reduce_as(void* to, const std::vector<const void*>& from, size_t count, ncclRedOp_t op) {
    using W = typename X::Wide;
    for (size_t i = 0; i < count; i++) {
        X sum = static_cast<const X*>(from[0])[i];
        for (size_t r = 1; r < from.size(); r++)
            sum = X::of(combine<W>(op, W(sum), W(static_cast<const X*>(from[r])[i])));
        if (op == ncclAvg) sum = X::of(W(W(sum) / W(from.size())));
        static_cast<X*>(to)[i] = sum;
    }
}

} // namespace

size_t bytes_of(ncclDataType_t t) {
    switch (t) {
    case ncclInt8:
    case ncclUint8: return 1;
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32: return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64: return 8;
    default: return 0;
    }
}

const char* name_of(ncclDataType_t t) {
    static const char* names[] = {"int8",   "uint8", "int32", "uint32", "int64",
                                  "uint64", "f16",   "f32",   "f64",    "bf16"};
    return t >= 0 && t < 10 ? names[t] : "an unknown type";
}

const char* name_of(ncclRedOp_t op) {
    static const char* names[] = {"sum", "product", "maximum", "minimum", "mean"};
    return op >= 0 && op < 5 ? names[op] : "an unknown reduction";
}

void reduce(void* to, const std::vector<const void*>& from, size_t count, ncclDataType_t t, ncclRedOp_t op) {
    switch (t) {
    case ncclInt8: return reduce_as<Plain<int8_t>>(to, from, count, op);
    case ncclUint8: return reduce_as<Plain<uint8_t>>(to, from, count, op);
    case ncclInt32: return reduce_as<Plain<int32_t>>(to, from, count, op);
    case ncclUint32: return reduce_as<Plain<uint32_t>>(to, from, count, op);
    case ncclInt64: return reduce_as<Plain<int64_t>>(to, from, count, op);
    case ncclUint64: return reduce_as<Plain<uint64_t>>(to, from, count, op);
    case ncclFloat32: return reduce_as<Plain<float>>(to, from, count, op);
    case ncclFloat64: return reduce_as<Plain<double>>(to, from, count, op);
    case ncclFloat16: return reduce_as<F16>(to, from, count, op);
    default: return reduce_as<Bf16>(to, from, count, op);
    }
}

} // namespace vgpu::nccl
