// The cuBLASLt look-alike against plain loops in double, and its rules.
#include <cublasLt.h>

#include <cmath>

#include "tests/vgpu/api.h"
#include "tools/vgpu/cublaslt/product.h"

using namespace vgpu;
using cublaslt::Type;

namespace {

cudaDataType cuda_type(Type t) {
    return t == Type::f32 ? CUDA_R_32F : t == Type::f16 ? CUDA_R_16F : CUDA_R_16BF;
}
double tolerance(Type t) { return t == Type::f32 ? 1e-5 : t == Type::f16 ? 1e-3 : 8e-3; }

struct Matrix {
    Type type;
    int64_t rows, cols, ld;
    int batch;
    std::vector<char> bytes;
    void* device = nullptr;

    Matrix(Type t, int64_t r, int64_t c, int64_t pad = 0, int n = 1)
        : type(t), rows(r), cols(c), ld(r + pad), batch(n) {
        bytes.resize(size_t(ld * cols * batch) * bytes_of(type));
        for (int64_t i = 0; i < ld * cols * batch; i++)
            set(type, bytes.data(), size_t(i), float((i * 7919 + rows) % 64 - 31) / 32);
        device = to_device(bytes);
    }
    double at(int64_t r, int64_t c, int b = 0) const {
        return get(type, bytes.data(), size_t(r + c * ld + b * ld * cols));
    }
    void fetch() { bytes = to_host(static_cast<char*>(device), bytes.size()); }
    cublasLtMatrixLayout_t layout() const {
        cublasLtMatrixLayout_t l;
        cublasLtMatrixLayoutCreate(&l, cuda_type(type), uint64_t(rows), uint64_t(cols), ld);
        int64_t stride = ld * cols;
        cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
        cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                         sizeof stride);
        return l;
    }
};

struct Lt : Vgpu {
    cublasLtHandle_t handle{};
    cublasLtMatmulDesc_t desc{};
    cublasLtMatmulPreference_t preference{};
    uint64_t workspace_bytes = 1 << 20;
    void* workspace = nullptr;
    bool with_algo = true;
    Lt() {
        cublasLtCreate(&handle);
        cublasLtMatmulPreferenceCreate(&preference);
        put(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
        workspace = device_array<char>(workspace_bytes);
        fresh();
    }
    ~Lt() override {
        cublasLtMatmulDescDestroy(desc), cublasLtMatmulPreferenceDestroy(preference), cublasLtDestroy(handle);
    }
    void fresh(cublasComputeType_t compute = CUBLAS_COMPUTE_32F) {
        cublasLtMatmulDescCreate(&desc, compute, CUDA_R_32F);
    }
    template <class X> void put(cublasLtMatmulPreferenceAttributes_t a, X x) {
        ASSERT_EQ(cublasLtMatmulPreferenceSetAttribute(preference, a, &x, sizeof x), CUBLAS_STATUS_SUCCESS);
    }
    template <class X> void put(cublasLtMatmulDescAttributes_t a, X x) {
        ASSERT_EQ(cublasLtMatmulDescSetAttribute(desc, a, &x, sizeof x), CUBLAS_STATUS_SUCCESS);
    }
    cublasStatus_t run(const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& d, float alpha = 1,
                       float beta = 0) {
        cublasLtMatrixLayout_t l[] = {a.layout(), b.layout(), c.layout(), d.layout()};
        cublasLtMatmulHeuristicResult_t found{};
        int count = 0;
        cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
        if (with_algo)
            status = cublasLtMatmulAlgoGetHeuristic(handle, desc, l[0], l[1], l[2], l[3], preference, 1,
                                                    &found, &count);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = cublasLtMatmul(handle, desc, &alpha, a.device, l[0], b.device, l[1], &beta, c.device,
                                    l[2], d.device, l[3], with_algo ? &found.algo : nullptr, workspace,
                                    workspace_bytes, nullptr);
        for (auto x : l) cublasLtMatrixLayoutDestroy(x);
        return status;
    }
};

double sum_of(const Matrix& a, bool ta, const Matrix& b, bool tb, int64_t row, int64_t col, int64_t k,
              int batch) {
    double sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += (ta ? a.at(i, row, batch) : a.at(row, i, batch)) *
               (tb ? b.at(col, i, batch) : b.at(i, col, batch));
    return sum;
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

void expect_close(double found, double expected, Type t, const char* what, int64_t row, int64_t col) {
    ASSERT_NEAR(found, expected, tolerance(t) * (1 + std::abs(expected))) << what << " " << row << "," << col;
}

} // namespace

TEST_F(Lt, multiplies_odd_shapes_of_all_types) {
    struct Types {
        Type in, out;
    };
    for (auto [in, out] : {Types{Type::f32, Type::f32},
                           {Type::bf16, Type::bf16},
                           {Type::bf16, Type::f32},
                           {Type::f16, Type::f16}})
        for (auto [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {33, 5, 300}, {130, 67, 17}})
            for (int transposed = 0; transposed < 4; transposed++) {
                bool ta = transposed & 1, tb = transposed & 2;
                Matrix a(in, ta ? k : m, ta ? m : k, 3, 2), b(in, tb ? n : k, tb ? k : n, 0, 2),
                    c(out, m, n, 1, 2), d(out, m, n, 2, 2);
                put(CUBLASLT_MATMUL_DESC_TRANSA, int32_t(ta ? CUBLAS_OP_T : CUBLAS_OP_N));
                put(CUBLASLT_MATMUL_DESC_TRANSB, int32_t(tb ? CUBLAS_OP_T : CUBLAS_OP_N));
                ASSERT_EQ(run(a, b, c, d, 0.5f, 2), CUBLAS_STATUS_SUCCESS) << last_refusal();
                d.fetch();
                for (int i = 0; i < 2; i++)
                    for (int64_t row = 0; row < m; row++)
                        for (int64_t col = 0; col < n; col++)
                            expect_close(d.at(row, col, i),
                                         0.5 * sum_of(a, ta, b, tb, row, col, k, i) + 2 * c.at(row, col, i),
                                         out, "product", row, col);
            }
}

TEST_F(Lt, has_epilogues) {
    int64_t m = 40, n = 24, k = 50;
    Matrix a(Type::f32, m, k), b(Type::f32, k, n), d(Type::f32, m, n), bias(Type::f32, m, 1),
        aux(Type::f32, m, n);
    put(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, m);
    struct Case {
        cublasLtEpilogue_t epilogue;
        double (*expected)(double x, double bias, double aux);
    };
    auto slope = [](double x) { return (gelu(x + 1e-6) - gelu(x - 1e-6)) / 2e-6; };
    static auto gelu_slope = slope;
    Case cases[] = {
        {CUBLASLT_EPILOGUE_BIAS, [](double x, double y, double) { return x + y; }},
        {CUBLASLT_EPILOGUE_RELU, [](double x, double, double) { return std::max(x, 0.); }},
        {CUBLASLT_EPILOGUE_RELU_BIAS, [](double x, double y, double) { return std::max(x + y, 0.); }},
        {CUBLASLT_EPILOGUE_GELU, [](double x, double, double) { return gelu(x); }},
        {CUBLASLT_EPILOGUE_GELU_BIAS, [](double x, double y, double) { return gelu(x + y); }},
        {CUBLASLT_EPILOGUE_GELU_AUX, [](double x, double, double) { return gelu(x); }},
        {CUBLASLT_EPILOGUE_GELU_AUX_BIAS, [](double x, double y, double) { return gelu(x + y); }},
        {CUBLASLT_EPILOGUE_DGELU, [](double x, double, double z) { return x * gelu_slope(z); }},
    };
    for (auto& [epilogue, expected] : cases) {
        Matrix z = aux, y = bias; // fresh values, old memory
        ok(cudaMemcpy(aux.device, aux.bytes.data(), aux.bytes.size(), cudaMemcpyHostToDevice));
        put(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t(epilogue));
        put(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.device);
        put(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux.device);
        ASSERT_EQ(run(a, b, d, d), CUBLAS_STATUS_SUCCESS) << last_refusal();
        d.fetch(), z.fetch();
        for (int64_t row = 0; row < m; row++)
            for (int64_t col = 0; col < n; col++) {
                double x = sum_of(a, false, b, false, row, col, k, 0), shifted = x + bias.at(row, 0);
                expect_close(d.at(row, col), expected(x, bias.at(row, 0), aux.at(row, col)), Type::f32,
                             "epilogue", row, col);
                if (epilogue == CUBLASLT_EPILOGUE_GELU_AUX || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS)
                    expect_close(z.at(row, col), epilogue & CUBLASLT_EPILOGUE_BIAS ? shifted : x, Type::f32,
                                 "aux", row, col);
            }
    }
}

TEST_F(Lt, has_gradients_of_bias) {
    int64_t m = 16, n = 24, k = 50;
    Matrix a(Type::f32, m, k), b(Type::f32, k, n), d(Type::f32, m, n), aux(Type::f32, m, n);
    put(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, m);
    put(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux.device);
    for (auto epilogue :
         {CUBLASLT_EPILOGUE_BGRADA, CUBLASLT_EPILOGUE_BGRADB, CUBLASLT_EPILOGUE_DGELU_BGRAD}) {
        int64_t length = epilogue == CUBLASLT_EPILOGUE_BGRADB ? n : m;
        Matrix bias(Type::f32, length, 1);
        put(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t(epilogue));
        put(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.device);
        ASSERT_EQ(run(a, b, d, d), CUBLAS_STATUS_SUCCESS) << last_refusal();
        bias.fetch(), d.fetch();
        for (int64_t i = 0; i < length; i++) {
            double sum = 0;
            if (epilogue == CUBLASLT_EPILOGUE_BGRADA)
                for (int64_t j = 0; j < k; j++) sum += a.at(i, j);
            else if (epilogue == CUBLASLT_EPILOGUE_BGRADB)
                for (int64_t j = 0; j < k; j++) sum += b.at(j, i);
            else
                for (int64_t j = 0; j < n; j++) sum += d.at(i, j);
            expect_close(bias.at(i, 0), sum, Type::f32, "bias gradient", i, 0);
        }
    }
}

TEST_F(Lt, tf32_is_only_for_those_who_ask) {
    Matrix a(Type::f32, 1, 1), b(Type::f32, 1, 1), d(Type::f32, 1, 1);
    float values[] = {1 + 0x1p-12f, 1};
    ok(cudaMemcpy(a.device, values, 4, cudaMemcpyHostToDevice));
    ok(cudaMemcpy(b.device, values + 1, 4, cudaMemcpyHostToDevice));
    ASSERT_EQ(run(a, b, d, d), CUBLAS_STATUS_SUCCESS);
    d.fetch();
    EXPECT_EQ(d.at(0, 0), 1 + 0x1p-12);
    fresh(CUBLAS_COMPUTE_32F_FAST_TF32);
    ASSERT_EQ(run(a, b, d, d), CUBLAS_STATUS_SUCCESS);
    d.fetch();
    EXPECT_EQ(d.at(0, 0), 1);
}

TEST_F(Lt, refuses_what_the_real_one_refuses) {
    Matrix a(Type::bf16, 16, 16), b(Type::bf16, 16, 16), d(Type::bf16, 16, 16), f(Type::f32, 16, 16),
        h(Type::f16, 16, 16);
    Matrix wide(Type::bf16, 16, 17);
    auto expect = [&](cublasStatus_t status, cublasStatus_t expected, const char* why, int64_t finds) {
        EXPECT_EQ(status, expected);
        EXPECT_NE(last_refusal().find(why), std::string::npos) << last_refusal();
        EXPECT_EQ(take_findings(Fault::api), finds) << why;
    };
    expect(run(a, h, d, d), CUBLAS_STATUS_NOT_SUPPORTED, "different types", 0);
    expect(run(f, f, d, d), CUBLAS_STATUS_NOT_SUPPORTED, "of A's type or f32", 0);
    expect(run(a, wide, d, d), CUBLAS_STATUS_INVALID_VALUE, "shapes do not fit", 1);
    Matrix bad = a;
    bad.ld = 15;
    expect(run(bad, b, d, d), CUBLAS_STATUS_INVALID_VALUE, "leading dimension 15", 1);
    expect(run(a, b, a, a, 1, 1), CUBLAS_STATUS_INVALID_VALUE, "overlaps", 1);
    Matrix shifted(Type::bf16, 16, 20);
    shifted.cols = 16, shifted.device = static_cast<char*>(shifted.device) + 16;
    expect(run(shifted, b, d, d), CUBLAS_STATUS_INVALID_VALUE, "256 bytes that the heuristic was told", 1);
    put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(16));
    EXPECT_EQ(run(shifted, b, d, d), CUBLAS_STATUS_SUCCESS) << last_refusal();
    workspace_bytes = 1000;
    expect(run(a, b, d, d), CUBLAS_STATUS_INVALID_VALUE, "workspace of 1048576", 1);
    workspace_bytes = 1 << 20;
    workspace = static_cast<char*>(workspace) + 8;
    expect(run(a, b, d, d), CUBLAS_STATUS_INVALID_VALUE, "16 bytes", 1);
    workspace = static_cast<char*>(workspace) - 8;
    put(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t(CUBLASLT_EPILOGUE_BIAS));
    expect(run(a, b, d, d), CUBLAS_STATUS_INVALID_VALUE, "BIAS_POINTER", 1);
    put(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t(CUBLASLT_EPILOGUE_GELU_AUX));
    expect(run(a, b, d, d), CUBLAS_STATUS_INVALID_VALUE, "AUX_LD", 1);
    put(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t(CUBLASLT_EPILOGUE_RELU_AUX));
    expect(run(a, b, d, d), CUBLAS_STATUS_NOT_SUPPORTED, "epilogue", 0);
    uint32_t value = 0;
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 8),
              CUBLAS_STATUS_INVALID_VALUE);
    size_t written = 0;
    EXPECT_EQ(cublasLtMatmulDescGetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &value, 4, &written),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(value, uint32_t(CUBLASLT_EPILOGUE_RELU_AUX));
    EXPECT_EQ(written, 4u);
}

TEST_F(Lt, touches_memory_as_kernels_do) {
    Matrix a(Type::f32, 16, 16), b(Type::f32, 16, 16), d(Type::f32, 16, 16);
    a.device = device_array<float>(256); // never written
    ASSERT_EQ(run(a, b, d, d), CUBLAS_STATUS_SUCCESS);
    ok(cudaDeviceSynchronize());
    EXPECT_EQ(take_findings(Fault::uninitialised), 1);
    b.device = to_device(std::vector<float>(255));
    ok(cudaMemset(a.device, 0, 1024));
    ASSERT_EQ(run(a, b, d, d), CUBLAS_STATUS_SUCCESS);
    ok(cudaDeviceSynchronize());
    EXPECT_EQ(take_findings(Fault::out_of_bounds), 1);
}

TEST_F(Lt, is_captured_like_a_kernel) {
    Matrix a(Type::f32, 8, 8), b(Type::f32, 8, 8), d(Type::f32, 8, 8);
    cudaStream_t s;
    ok(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cublasLtMatrixLayout_t l = a.layout();
    float alpha = 1, beta = 1; // D += A B
    ok(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    ASSERT_EQ(cublasLtMatmul(handle, desc, &alpha, a.device, l, b.device, l, &beta, d.device, l, d.device, l,
                             nullptr, nullptr, 0, s),
              CUBLAS_STATUS_SUCCESS)
        << last_refusal();
    ok(cudaStreamEndCapture(s, &graph));
    alpha = beta = 100; // read at the call
    ok(cudaGraphInstantiate(&exec, graph, 0));
    double before = d.at(1, 2);
    ok(cudaGraphLaunch(exec, s)), ok(cudaGraphLaunch(exec, s)), ok(cudaStreamSynchronize(s));
    d.fetch();
    EXPECT_NEAR(d.at(1, 2), before + 2 * sum_of(a, false, b, false, 1, 2, 8, 0), 1e-5);
    cublasLtMatrixLayoutDestroy(l);
}
