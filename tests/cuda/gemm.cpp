// kernels/linear/gemm_cuda.h on the device: right in every layout, type, alignment and tile; and the bits of
// an element depend on its row of A, its column of B and K alone.
#include "kernels/linear/gemm_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/base/rng.h"
#include "engine/device/device.h"
#include "tools/vgpu/count/traffic.h"
#include "tools/vgpu/vgpu.h"

using namespace nvl;

namespace {

DeviceBackend& device() { return backend_of(Device::cuda); }

/// A matrix of X on the device; `gap` elements lie before each row and belong to nobody.
template <class X> struct OnDevice {
    int64_t rows, cols, gap, ld;
    std::byte* data;
    OnDevice(int64_t rows_, int64_t cols_, int64_t gap_, const std::vector<double>& values)
        : rows(rows_), cols(cols_), gap(gap_), ld(cols_ + gap_),
          data(device().allocate(size_t(std::max<int64_t>(1, rows * ld)) * sizeof(X))) {
        std::vector<X> host(size_t(rows * ld), X(-77.f));
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++)
                host[size_t(i * ld + gap + j)] = X(float(values[size_t(i * cols + j)]));
        device().upload(data, host.data(), host.size() * sizeof(X));
    }
    ~OnDevice() { device().release(data); }
    OnDevice(const OnDevice&) = delete;
    X* at(int64_t row = 0) const { return reinterpret_cast<X*>(data) + row * ld + gap; }
    /// The elements; the gaps must be as they were.
    std::vector<float> read() const {
        std::vector<X> host(size_t(rows * ld));
        device().download(host.data(), data, host.size() * sizeof(X));
        std::vector<float> r;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < ld; j++) {
                float v = float(host[size_t(i * ld + j)]);
                if (j >= gap)
                    r.push_back(v);
                else
                    EXPECT_EQ(v, -77.f) << "row " << i << ": written outside of C";
            }
        return r;
    }
};

std::vector<double> numbers(int64_t n, uint64_t key, double scale = 1) {
    Random random(key, "cuda gemm test");
    std::vector<double> v(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; i++) v[size_t(i)] = float(bf16(float(scale * random.normal(uint64_t(i)))));
    return v;
}
std::vector<double> transposed(const std::vector<double>& v, int64_t rows, int64_t cols) {
    std::vector<double> t(v.size());
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) t[size_t(j * rows + i)] = v[size_t(i * cols + j)];
    return t;
}

struct Restore { // whatever a test sets
    ~Restore() { set_cuda_gemm_tile("auto"), set_cuda_gemm_backend("own"); }
};

struct Shape3 {
    int64_t M, N, K;
};
struct Way {
    bool trans_a = false, trans_b = true;
    int64_t gap = 0; // of A, B, C; odd gaps are not aligned
};

/// C = A B with A (M,K) and B (K,N) given by rows of A and of B^T.
template <class X, class Y> std::vector<float>
multiply(const Shape3& s, const Way& way, const std::vector<double>& a, const std::vector<double>& b) {
    OnDevice<X> A(way.trans_a ? s.K : s.M, way.trans_a ? s.M : s.K, way.gap,
                  way.trans_a ? transposed(a, s.M, s.K) : a);
    OnDevice<X> B(way.trans_b ? s.N : s.K, way.trans_b ? s.K : s.N, way.gap,
                  way.trans_b ? b : transposed(b, s.N, s.K));
    OnDevice<Y> C(s.M, s.N, way.gap, std::vector<double>(size_t(s.M * s.N), NAN));
    cuda_gemm({.M = s.M,
               .N = s.N,
               .K = s.K,
               .A = A.at(),
               .lda = A.ld,
               .trans_a = way.trans_a,
               .B = B.at(),
               .ldb = B.ld,
               .trans_b = way.trans_b,
               .C = C.at(),
               .ldc = C.ld,
               .in = dtype_of<X>,
               .out = dtype_of<Y>});
    return C.read();
}

std::vector<double> reference(const Shape3& s, const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> c(size_t(s.M * s.N));
    for (int64_t m = 0; m < s.M; m++)
        for (int64_t n = 0; n < s.N; n++)
            for (int64_t k = 0; k < s.K; k++)
                c[size_t(m * s.N + n)] += a[size_t(m * s.K + k)] * b[size_t(n * s.K + k)];
    return c;
}
void expect_near(const std::vector<float>& c, const std::vector<double>& expected, double tolerance,
                 const std::string& what) {
    ASSERT_EQ(c.size(), expected.size());
    for (size_t i = 0; i < c.size(); i++)
        ASSERT_NEAR(c[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << what << ": element " << i;
}
std::string name_of_case(const Shape3& s, const Way& w, const char* tile) {
    char text[120];
    snprintf(text, sizeof text, "%ldx%ldx%ld trans %d %d gap %ld tile %s", long(s.M), long(s.N), long(s.K),
             w.trans_a, w.trans_b, long(w.gap), tile);
    return text;
}

constexpr Shape3 SHAPES[] = {{1, 1, 1},    {1, 40, 64},   {3, 33, 17},  {16, 64, 200},
                             {20, 96, 71}, {64, 32, 256}, {70, 50, 40}, {130, 140, 96}};

template <class X> void layouts_and_tiles(double tolerance) {
    Restore restore;
    for (const Shape3& s : SHAPES) {
        std::vector<double> a = numbers(s.M * s.K, 1), b = numbers(s.N * s.K, 2),
                            expected = reference(s, a, b);
        std::vector<float> bits;
        for (const Way& way :
             {Way{false, true, 0}, Way{false, false, 0}, Way{true, false, 0}, Way{true, true, 0},
              Way{false, true, 3}, Way{true, false, 8}, Way{false, false, 1}}) {
            set_cuda_gemm_tile("auto");
            std::vector<float> c = multiply<X, float>(s, way, a, b);
            expect_near(c, expected, tolerance, name_of_case(s, way, "auto"));
            if (bits.empty()) bits = c;
            EXPECT_EQ(c, bits) << name_of_case(s, way, "auto");
        }
        for (const char* tile : {"small", "large", "rows16", "rows64"}) {
            bool aligned = s.K % 8 == 0 && (sizeof(X) == 2 || tile[0] != 'r');
            if (!aligned && std::string(tile) != "small") continue;
            set_cuda_gemm_tile(tile);
            EXPECT_EQ((multiply<X, float>(s, {}, a, b)), bits) << name_of_case(s, {}, tile);
            if (s.N % 8 == 0)
                EXPECT_EQ((multiply<X, float>(s, {false, false}, a, b)), bits) << name_of_case(s, {}, tile);
            if (s.N % 8 == 0 && s.M % 8 == 0 && tile[0] != 'r')
                EXPECT_EQ((multiply<X, float>(s, {true, false}, a, b)), bits) << name_of_case(s, {}, tile);
        }
    }
}

} // namespace

TEST(CudaGemm, Bf16EveryLayoutAndTile) { layouts_and_tiles<bf16>(2e-5); }
TEST(CudaGemm, F32EveryLayoutAndTile) { layouts_and_tiles<float>(2e-5); }

// A prefix of the batch, and a part of it from the middle: decode equals prefill.
TEST(CudaGemm, ARowDoesNotKnowItsBatch) {
    Shape3 whole{150, 72, 104};
    std::vector<double> a = numbers(whole.M * whole.K, 3), b = numbers(whole.N * whole.K, 4);
    std::vector<float> all = multiply<bf16, bf16>(whole, {}, a, b);
    std::vector<float> all32 = multiply<float, float>(whole, {}, a, b);
    for (auto [from, M] :
         {std::pair<int64_t, int64_t>{0, 1}, {149, 1}, {7, 16}, {30, 17}, {40, 64}, {10, 65}}) {
        std::vector<double> part(a.begin() + from * whole.K, a.begin() + (from + M) * whole.K);
        auto rows = [&](const std::vector<float>& v) {
            return std::vector<float>(v.begin() + from * whole.N, v.begin() + (from + M) * whole.N);
        };
        Shape3 s{M, whole.N, whole.K};
        EXPECT_EQ((multiply<bf16, bf16>(s, {}, part, b)), rows(all)) << "rows " << from << " + " << M;
        EXPECT_EQ((multiply<float, float>(s, {}, part, b)), rows(all32)) << "rows " << from << " + " << M;
    }
}

// C = keep C + residual + gelu(A B + bias), by every subset.
template <class X, class Y> static void epilogues(const char* backend) {
    Restore restore;
    set_cuda_gemm_backend(backend);
    bool own = std::string(backend) != "cublaslt";
    Shape3 s{24, 40, 32};
    std::vector<double> a = numbers(s.M * s.K, 5, 0.3), b = numbers(s.N * s.K, 6, 0.3),
                        sum = reference(s, a, b);
    std::vector<double> bias = numbers(s.N, 7), residual = numbers(s.M * s.N, 8),
                        before = numbers(s.M * s.N, 9);
    for (int64_t gap : {0, 8, 1})
        for (int options = 0; options < 16; options++) {
            bool add = options & 1, with_residual = options & 2, with_bias = options & 4, gelu = options & 8;
            if (!own && (gap == 1 || (add && with_residual) || (gelu && (add || with_residual)))) continue;
            OnDevice<X> A(s.M, s.K, gap, a), B(s.N, s.K, gap, b);
            OnDevice<Y> C(s.M, s.N, gap, before), R(s.M, s.N, gap, residual), V(1, s.N, gap, bias);
            GemmArgs g{.M = s.M, .N = s.N, .K = s.K, .A = A.at(), .lda = A.ld, .B = B.at(), .ldb = B.ld};
            g.trans_b = true, g.C = C.at(), g.ldc = C.ld, g.in = dtype_of<X>, g.out = dtype_of<Y>;
            g.accumulate = add;
            if (with_bias) g.bias = V.at(), g.bias_dtype = dtype_of<Y>;
            if (with_residual) g.residual = R.at(), g.ldr = R.ld;
            if (gelu) g.activation = Epilogue::gelu_tanh;
            cuda_gemm(g, {.keep = 0.5f});
            std::vector<double> expected(sum.size());
            for (size_t i = 0; i < sum.size(); i++) {
                double x = sum[i] + (with_bias ? bias[i % size_t(s.N)] : 0);
                if (gelu) x = 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
                expected[i] = x + (with_residual ? residual[i] : 0) + (add ? 0.5 * before[i] : 0);
            }
            expect_near(C.read(), expected, sizeof(Y) == 2 ? 4e-3 : 1e-5,
                        backend + std::string(" options ") + std::to_string(options));
        }
}
TEST(CudaGemm, EpiloguesBf16) { epilogues<bf16, bf16>("own"); }
TEST(CudaGemm, EpiloguesBf16ToF32) { epilogues<bf16, float>("own"); }
TEST(CudaGemm, EpiloguesF32) { epilogues<float, float>("own"); }

TEST(CudaGemm, SymmetricIsTheWhole) {
    Restore restore;
    for (const char* tile : {"small", "large"})
        for (int64_t n : {8, 72, 200})
            for (bool transposed_a : {false, true}) {
                set_cuda_gemm_tile(tile);
                int64_t K = 48;
                OnDevice<bf16> A(transposed_a ? K : n, transposed_a ? n : K, 0, numbers(n * K, 11));
                OnDevice<float> whole(n, n, 4, numbers(n * n, 1)), half(n, n, 4, numbers(n * n, 1));
                GemmArgs g{.M = n, .N = n, .K = K, .A = A.at(), .trans_a = transposed_a, .B = A.at()};
                g.trans_b = !transposed_a, g.in = Dtype::bf16, g.ldc = whole.ld;
                g.C = whole.at(), cuda_gemm(g);
                g.C = half.at(), cuda_gemm(g, {.symmetric = true});
                EXPECT_EQ(half.read(), whole.read()) << tile << " n " << n << " trans " << transposed_a;
            }
}

// Every tile: whole sectors, no bank conflicts, and of memory no more than the matrices.
TEST(CudaGemm, MovesWholeSectorsWithoutConflicts) {
    Restore restore;
    int64_t N = 256, K = 256;
    for (Dtype in : {Dtype::bf16, Dtype::f32})
        for (std::string tile : {"large", "small", "rows16", "rows64"})
            for (const Way& way : {Way{false, true}, Way{false, false}, Way{true, false}}) {
                bool few = tile[0] == 'r';
                if (few && (way.trans_a || in == Dtype::f32)) continue;
                int64_t M = tile == "rows16" ? 16 : few ? 64 : 256;
                OnDevice<float> A(M, K, 0, numbers(M * K, 1)), B(N, K, 0, numbers(N * K, 2));
                OnDevice<float> C(M, N, 0, numbers(M * N, 3));
                device().synchronize();
                vgpu::clear_traffic(), vgpu::set_count(true);
                set_cuda_gemm_tile(tile);
                cuda_gemm({.M = M,
                           .N = N,
                           .K = K,
                           .A = A.at(),
                           .trans_a = way.trans_a,
                           .B = B.at(),
                           .trans_b = way.trans_b,
                           .C = C.at(),
                           .in = in,
                           .accumulate = true});
                device().synchronize();
                vgpu::set_count(false);
                vgpu::Traffic t = vgpu::traffic_of("gemm");
                SCOPED_TRACE(name_of_case({M, N, K}, way, tile.c_str()) + " " + name_of(in));
                EXPECT_EQ(32 * t.read.unique, uint64_t((M + N) * K * size_of(in) + 4 * M * N));
                EXPECT_EQ(32 * t.write.unique, uint64_t(4 * M * N));
                EXPECT_EQ(t.read.sectors_per_requested(), 1);
                EXPECT_EQ(t.write.sectors_per_requested(), 1);
                EXPECT_EQ(t.bank_ratio(), 1);
                EXPECT_EQ(t.local_bytes, 0u);
            }
}

TEST(CudaGemm, NoTermsGiveZero) {
    OnDevice<float> C(5, 7, 0, numbers(35, 1));
    for (Dtype in : {Dtype::f32, Dtype::bf16}) {
        cuda_gemm({.M = 5, .N = 7, .K = 0, .A = C.at(), .B = C.at(), .C = C.at(), .in = in});
        EXPECT_EQ(C.read(), std::vector<float>(35, 0.f));
    }
}

TEST(CudaGemm, CublasLtAgrees) {
    Restore restore;
    set_cuda_gemm_backend("cublaslt");
    for (const Shape3& s : {Shape3{8, 16, 64}, {40, 24, 48}, {1, 64, 128}}) {
        std::vector<double> a = numbers(s.M * s.K, 1), b = numbers(s.N * s.K, 2),
                            expected = reference(s, a, b);
        for (const Way& way : {Way{false, true, 0}, Way{false, false, 0}, Way{true, false, 8}}) {
            if (way.trans_a && s.M % 8) continue;
            for (int again = 0; again < 2; again++) { // the second comes from the kept plan
                expect_near(multiply<bf16, bf16>(s, way, a, b), expected, 4e-3,
                            name_of_case(s, way, "cublaslt"));
                expect_near(multiply<float, float>(s, way, a, b), expected, 2e-5,
                            name_of_case(s, way, "cublaslt"));
            }
        }
    }
    epilogues<bf16, bf16>("cublaslt");
    epilogues<float, float>("cublaslt");
}

// Where the program has kernels for sm_90a and the device runs them (VGPU_ARCH=90).
TEST(CudaGemm, Hopper) {
    if (vgpu::options().arch != 90 || !cuda_gemm_has_hopper())
        GTEST_SKIP() << "not a build or device for sm_90a";
    Restore restore;
    set_cuda_gemm_backend("hopper");
    for (const Shape3& s : {Shape3{8, 16, 64}, {300, 136, 200}, {64, 256, 256}, {520, 8, 72}}) {
        std::vector<double> a = numbers(s.M * s.K, 1), b = numbers(s.N * s.K, 2),
                            expected = reference(s, a, b);
        std::vector<float> bits;
        for (const Way& way : {Way{false, true}, Way{false, false}, Way{true, false}, Way{true, true}}) {
            if (way.trans_a && s.M % 8) continue;
            std::vector<float> c = multiply<bf16, float>(s, way, a, b);
            expect_near(c, expected, 2e-5, name_of_case(s, way, "hopper"));
            if (bits.empty()) bits = c;
            EXPECT_EQ(c, bits) << name_of_case(s, way, "hopper");
        }
    }
    epilogues<bf16, bf16>("hopper");
    EXPECT_GT(vgpu::launches("gemm_sm90a"), 0u);
}

TEST(CudaGemm, SaysWhatItCannotDo) {
    Restore restore;
    EXPECT_THROW(set_cuda_gemm_backend("cudnn"), std::exception);
    EXPECT_THROW(cuda_gemm({.M = 1, .N = 1, .K = 1, .in = Dtype::f64, .out = Dtype::f64}), std::exception);
    EXPECT_THROW(cuda_gemm({.M = 1, .N = 2, .K = 1, .activation = Epilogue::swiglu}), std::exception);
}
