// The vendor's products behind cuda_gemm(): NVL_GEMM=cublaslt. Descriptors and the chosen algorithm are kept
// by shape, so a step that repeats asks the library nothing. True f32 for f32; its order of summation is its
// own.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>

#include "engine/device/cuda.h"
#include "kernels/linear/gemm_kernels.cuh"

namespace nvl {

namespace {

constexpr size_t WORKSPACE = size_t(32) << 20;

void lt_check(cublasStatus_t status, const char* what) {
    check(status == CUBLAS_STATUS_SUCCESS, "gemm: cublasLt failed to %s: %s", what,
          cublasLtGetStatusString(status));
}

cudaDataType_t type_of(Dtype d) { return d == Dtype::bf16 ? CUDA_R_16BF : CUDA_R_32F; }
uint32_t alignment(const void* p) { return uint32_t(std::min<uintptr_t>(256, uintptr_t(p) & -uintptr_t(p))); }

/// What cublasLt calls C: read with beta, in the layout of D.
const void* added(const GemmArgs& g) { return g.residual ? g.residual : g.C; }

// cublasLt thinks in columns, so it computes C^T = B^T A^T: its A is our B, its rows are our N.
struct Plan {
    cublasLtMatmulDesc_t op = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algo{};

    Plan() = default;
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;
    ~Plan() {
        for (auto layout : {a, b, c, d})
            if (layout) cublasLtMatrixLayoutDestroy(layout);
        if (op) cublasLtMatmulDescDestroy(op);
    }
    template <class V> void set(cublasLtMatmulDescAttributes_t what, V value) {
        lt_check(cublasLtMatmulDescSetAttribute(op, what, &value, sizeof value), "describe the product");
    }
    void describe(const GemmArgs& g) {
        lt_check(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe the product");
        set(CUBLASLT_MATMUL_DESC_TRANSA, g.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, g.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
        bool gelu = g.activation == Epilogue::gelu_tanh;
        set(CUBLASLT_MATMUL_DESC_EPILOGUE, g.bias
                                               ? gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS
                                           : gelu ? CUBLASLT_EPILOGUE_GELU
                                                  : CUBLASLT_EPILOGUE_DEFAULT);
        auto layout = [&](cublasLtMatrixLayout_t& l, Dtype type, bool transposed, int64_t rows, int64_t cols,
                          int64_t ld) {
            if (transposed) std::swap(rows, cols);
            lt_check(cublasLtMatrixLayoutCreate(&l, type_of(type), uint64_t(rows), uint64_t(cols), ld),
                     "describe a matrix");
        };
        layout(a, g.in, g.trans_b, g.N, g.K, g.ldb);
        layout(b, g.in, g.trans_a, g.K, g.M, g.lda);
        layout(c, g.out, false, g.N, g.M, g.residual ? g.ldr : g.ldc);
        layout(d, g.out, false, g.N, g.M, g.ldc);
    }
    void choose(cublasLtHandle_t lt, const GemmArgs& g) {
        cublasLtMatmulPreference_t p;
        lt_check(cublasLtMatmulPreferenceCreate(&p), "describe what is preferred");
        auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
            lt_check(cublasLtMatmulPreferenceSetAttribute(p, what, &value, sizeof value),
                     "describe what is preferred");
        };
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(WORKSPACE));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(g.B));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(g.A));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(added(g)));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(g.C));
        cublasLtMatmulHeuristicResult_t found{};
        int count = 0;
        cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(lt, op, a, b, c, d, p, 1, &found, &count);
        cublasLtMatmulPreferenceDestroy(p);
        lt_check(status, "find an algorithm");
        check(count > 0, "gemm: cublasLt has no algorithm for M=%ld N=%ld K=%ld; use NVL_GEMM=own", long(g.M),
              long(g.N), long(g.K));
        algo = found.algo;
    }
};

using Key = std::array<int64_t, 19>;
Key key_of(const GemmArgs& g) {
    return {g.M,
            g.N,
            g.K,
            g.lda,
            g.ldb,
            g.ldc,
            g.ldr,
            g.trans_a,
            g.trans_b,
            int64_t(g.in),
            int64_t(g.out),
            g.accumulate,
            g.bias != nullptr,
            int64_t(g.bias_dtype),
            int64_t(g.activation),
            alignment(g.A),
            alignment(g.B),
            alignment(g.C),
            g.residual ? alignment(g.residual) : 0};
}

/// Of one thread, hence of one stream at a time: two streams must not share the workspace.
struct Library {
    cublasLtHandle_t lt = nullptr;
    void* workspace = nullptr;
    std::map<Key, std::unique_ptr<Plan>> plans;
    Library() {
        lt_check(cublasLtCreate(&lt), "start");
        cuda_check(cudaMalloc(&workspace, WORKSPACE), "gemm: workspace of cublasLt");
    }
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;
    ~Library() {
        plans.clear();
        cudaFree(workspace);
        cublasLtDestroy(lt);
    }
    Plan& plan(const GemmArgs& g) {
        auto& kept = plans[key_of(g)];
        if (!kept) {
            auto fresh = std::make_unique<Plan>();
            fresh->describe(g), fresh->choose(lt, g);
            kept = std::move(fresh);
        }
        return *kept;
    }
};

} // namespace

void gemm_cublaslt(const GemmArgs& g, float keep) {
    check(!(g.accumulate && g.residual), "gemm: cublasLt adds one matrix, not both C and a residual");
    check(!(g.activation == Epilogue::gelu_tanh && (g.accumulate || g.residual)),
          "gemm: cublasLt applies GELU after it adds C or a residual; use NVL_GEMM=own");
    check(!g.bias || g.bias_dtype == g.out, "gemm: cublasLt wants a bias of the result's type, %s, not %s",
          name_of(g.out), name_of(g.bias_dtype));
    static thread_local Library library;
    Plan& p = library.plan(g);
    if (g.bias) p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    float alpha = 1, beta = g.accumulate ? keep : g.residual ? 1.f : 0.f;
    lt_check(cublasLtMatmul(library.lt, p.op, &alpha, g.B, p.a, g.A, p.b, &beta, added(g), p.c, g.C, p.d,
                            &p.algo, library.workspace, WORKSPACE, cuda_stream()),
             "multiply");
}

} // namespace nvl
