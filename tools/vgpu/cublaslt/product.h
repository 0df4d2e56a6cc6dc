// The product that the cuBLASLt look-alike computes: D = act(alpha * op(A) op(B) + beta * C + bias), columns
// first.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vgpu::cublaslt {

enum class Type : uint8_t { f32, f16, bf16 };
constexpr size_t bytes_of(Type t) { return t == Type::f32 ? 4 : 2; }
float get(Type, const void* p, size_t i);
void set(Type, void* p, size_t i, float value);

struct Operand {
    const void* data;
    Type type;
    int64_t ld;
    bool transposed;
    bool tf32 = false; // rounded to 10 bits of fraction first
};

/// sums (m, n) f32, column major, dense: op(A) (m, k) times op(B) (k, n). Each sum runs over k in order, so
/// its bits do not depend on the number of threads.
void product(float* sums, const Operand& a, const Operand& b, int64_t m, int64_t n, int64_t k, int threads);

} // namespace vgpu::cublaslt
