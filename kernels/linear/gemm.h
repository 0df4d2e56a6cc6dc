// C = op(A) op(B) with a fixed order of summation: a row's bits depend on that row of A and on B alone.
//
//   C[m][n] = (accumulate ? C[m][n] : 0) + residual[m][n] + act(sum_k A[m][k] B[k][n] + bias[n])
//
// Definition of the sum (f32 for f32 and bf16 inputs, f64 for f64). It depends on K only: not on M, N, the
// layouts, leading dimensions, packing, cache blocks, number of threads or the instruction set.
//   1. K is cut into 1, 2, 4 or 8 equal leaves (gemm_order): halved while the half is even and >= 192.
//   2. In a leaf c = fma(a_k, b_k, c) for ascending k from c = 0. bf16 goes by pairs (k, k + 1) with the odd
//      element first: c = fma(a_k, b_k, fma(a_{k+1}, b_{k+1}, c)), which is what vdpbf16ps computes.
//   3. Leaves are summed as a balanced binary tree: left + right. So K split over 2, 4 or 8 ranks and summed
//      pairwise in f32 gives the bits of one rank, if each rank computes its share of the leaves (`leaves`).
//   4. Then + bias, activation, + residual, C + x, each one operation in that precision; the store rounds
//   once.
// Denormals are zero, as inputs and as results (f32 and bf16): vdpbf16ps flushes whatever MXCSR says, so the
// rest is made to agree. NaN payloads and the sign of a zero sum of nothing but -0 are not promised.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/base/memory.h"

namespace nvl {

/// K as `leaves` chains of `leaf` terms each.
struct GemmOrder {
    int64_t leaf;
    int leaves;
};
GemmOrder gemm_order(int64_t K);

/// swiglu: silu(gate) * up for a weight packed from two matrices; C then has N / 2 columns.
enum class Epilogue : uint8_t { none, gelu_tanh, swiglu };

class PackedWeight;

/// All matrices are row-major. A leading dimension of 0 means "rows are dense".
///   y  = x W^T    (T,K)(N,K)    trans_b = true              forward
///   dx = dy W     (T,N)(N,K)    neither                     gradient of the input
///   dW = dy^T x   (T,N)(T,K)    trans_a = true              gradient of the weight; accumulate for more
struct GemmArgs {
    int64_t M = 0, N = 0, K = 0;
    const void* A = nullptr; // (M,K), or (K,M) if trans_a
    int64_t lda = 0;
    bool trans_a = false;
    const void* B = nullptr; // (K,N), or (N,K) if trans_b
    int64_t ldb = 0;
    bool trans_b = false;
    void* C = nullptr; // (M,N)
    int64_t ldc = 0;
    Dtype in = Dtype::f32;  // of A and B: f32, bf16 or f64
    Dtype out = Dtype::f32; // of C and residual: f32 or bf16; f64 if `in` is
    bool accumulate = false;
    const void* bias = nullptr; // (N)
    Dtype bias_dtype = Dtype::f32;
    const void* residual = nullptr; // (M,N), leading dimension ldr; may be C itself
    int64_t ldr = 0;
    Epilogue activation = Epilogue::none;
    const PackedWeight* packed = nullptr; // instead of B
    int leaves =
        0; // 0: gemm_order(K). 1, 2, 4 or 8: what a rank that has a part of K computes of the whole's
};

/// Runs on threads() threads; inside a parallel_for on the caller's alone. Uses scratch slots 4 to 7.
void gemm(const GemmArgs& args);

/// A weight rearranged once for inference: the order in which the kernels read it, same bytes, same results.
/// Belongs to the variant that packed it (set_gemm_variant later does not matter to it).
class PackedWeight {
public:
    PackedWeight() = default;
    /// From W (N,K), the layout of trans_b. The source may be freed afterwards.
    PackedWeight(const void* W, int64_t ld, int64_t N, int64_t K, Dtype dtype);
    /// From gate and up (F,K) each, for Epilogue::swiglu: N() is 2 F.
    PackedWeight(const void* gate, const void* up, int64_t ld, int64_t F, int64_t K, Dtype dtype);
    int64_t N() const { return N_; }
    int64_t K() const { return K_; }
    Dtype dtype() const { return dtype_; }
    bool swiglu() const { return swiglu_; }
    size_t bytes() const { return memory_.bytes(); }
    explicit operator bool() const { return bool(memory_); }

private:
    friend struct GemmDriver;
    template <class Pack>
    void fill(const char* expected, bool found, int64_t ld, int64_t outputs, int columns, Pack pack);
    Memory memory_;
    int64_t N_ = 0, K_ = 0;
    Dtype dtype_ = Dtype::f32;
    bool swiglu_ = false;
    const struct GemmVariant* variant_ = nullptr;
};

/// Inner loops: "avx512bf16", "avx512", "avx2" or "portable"; the best that this CPU runs unless set.
std::string gemm_variant();
void set_gemm_variant(const std::string& name); // "auto" restores the choice
std::vector<std::string> gemm_variants();       // those that this CPU runs, best first

/// "own" (the default) or "onednn": fast where oneDNN is, but its order of summation is its own, so the
/// promises above do not hold. An error if this build has no oneDNN.
std::string gemm_backend();
void set_gemm_backend(const std::string& name);

/// Attainable GFLOP/s of the multiply-add loop on all threads, measured in some 50 ms: the 100 % of MFU.
double gemm_peak_gflops(Dtype dtype);

} // namespace nvl
