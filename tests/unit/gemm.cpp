// kernels/linear/gemm: the bits of an element depend on its row of A, its column of B and K, on nothing else.
#include "kernels/linear/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "engine/base/parallel.h"
#include "engine/base/rng.h"

using namespace nvl;

namespace {

// Random matrices in both layouts, and the product by the definition, in f32.
template <class X> struct Problem {
    int64_t M, N, K;
    std::vector<X> a, at, b, bt; // (M,K) (K,M) (N,K) (K,N)
    std::vector<float> product;

    Problem(int64_t M_, int64_t N_, int64_t K_)
        : M(M_), N(N_), K(K_), a(M * K), at(M * K), b(N * K), bt(N * K) {
        Random random(7, "gemm test");
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) a[m * K + k] = at[k * M + m] = X(float(random.normal(m * K + k)));
        for (int64_t n = 0; n < N; n++)
            for (int64_t k = 0; k < K; k++)
                b[n * K + k] = bt[k * N + n] = X(float(random.normal((int64_t(1) << 32) + n * K + k)));
        product.resize(M * N);
        gemm(args(product.data(), true));
    }
    GemmArgs args(void* C, bool trans_b, bool trans_a = false) const {
        GemmArgs g{.M = M, .N = N, .K = K, .C = C, .in = dtype_of<X>};
        g.A = trans_a ? at.data() : a.data(), g.trans_a = trans_a;
        g.B = trans_b ? b.data() : bt.data(), g.trans_b = trans_b;
        return g;
    }
    float scalar(int64_t m, int64_t n) const { // step 1 to 3 of the header
        GemmOrder order = gemm_order(K);
        std::function<float(int, int)> tree = [&](int first, int count) {
            if (count > 1) return tree(first, count / 2) + tree(first + count / 2, count / 2);
            float c = 0;
            const X *x = &a[m * K], *y = &b[n * K];
            int64_t end = (first + 1) * order.leaf;
            for (int64_t k = first * order.leaf; k < end; k += sizeof(X) == 2 ? 2 : 1) {
                if (sizeof(X) == 2 && k + 1 < end) c = std::fma(float(x[k + 1]), float(y[k + 1]), c);
                c = std::fma(float(x[k]), float(y[k]), c);
            }
            return c;
        };
        return tree(0, order.leaves);
    }
};

struct Restore { // whatever a test sets
    int n = threads();
    ~Restore() { set_threads(n), set_gemm_variant("auto"), set_gemm_backend("own"); }
};

template <class T> bool same(const std::vector<T>& x, const std::vector<T>& y) {
    return x.size() == y.size() && !memcmp(x.data(), y.data(), x.size() * sizeof(T));
}

constexpr std::pair<int64_t, int64_t> SHAPES[] = // N, K
    {{96, 768}, {200, 1024}, {33, 256}, {130, 4096}, {64, 71}, {50, 2500}, {7, 1}};

// Every way of asking for the first or last M rows: threads, layouts, packed or not, ldc > N; no write
// outside.
template <class X> void all_ways(const Problem<X>& p, const PackedWeight& packed, int64_t M, int64_t offset) {
    for (int n : {1, 2}) {
        set_threads(n);
        for (int way = 0; way < 5; way++) {
            bool trans_a = way & 2, trans_b = way & 1, use_packed = way == 4;
            int64_t ldc = p.N + M % 3;
            std::vector<float> C(M * ldc + 8, 9e9f);
            GemmArgs g = p.args(C.data(), trans_b, trans_a);
            g.A = trans_a ? p.at.data() + offset : p.a.data() + offset * p.K;
            g.M = M, g.lda = trans_a ? p.M : p.K, g.ldc = ldc;
            if (use_packed) g.packed = &packed, g.B = nullptr;
            gemm(g);
            bool rows = true, outside = true;
            for (int64_t m = 0; m < M; m++) {
                rows &= !memcmp(&C[m * ldc], &p.product[(m + offset) * p.N], p.N * 4);
                for (int64_t j = p.N; j < ldc; j++) outside &= C[m * ldc + j] == 9e9f;
            }
            for (int i = 0; i < 8; i++) outside &= C[M * ldc + i] == 9e9f;
            EXPECT_TRUE(rows) << "M " << M << " N " << p.N << " K " << p.K << " threads " << n << " way "
                              << way;
            EXPECT_TRUE(outside) << "M " << M << " N " << p.N << " K " << p.K << " way " << way;
        }
    }
}

template <class X> void check_bits() {
    Restore restore;
    for (auto [N, K] : SHAPES) {
        set_threads(1);
        Problem<X> p(129, N, K);
        PackedWeight packed(p.b.data(), 0, N, K, dtype_of<X>);
        for (int64_t M : {1, 2, 3, 5, 6, 13, 14, 15, 16, 17, 28, 129})
            for (int64_t offset : {int64_t(0), p.M - M}) all_ways(p, packed, M, offset);
    }
}

// The definition, element by element; and the error against double.
template <class X> void check_definition(double tolerance) {
    double worst = 0;
    for (auto [N, K] : SHAPES) {
        Problem<X> p(40, N, K);
        for (int64_t m = 0; m < p.M; m += 3)
            for (int64_t n = 0; n < N; n += 5) {
                ASSERT_EQ(p.scalar(m, n), p.product[m * N + n]) << "K " << K << " at " << m << "," << n;
                double sum = 0, size = 0;
                for (int64_t k = 0; k < K; k++) {
                    double x = double(float(p.a[m * K + k])) * double(float(p.b[n * K + k]));
                    sum += x, size += std::abs(x);
                }
                worst = std::max(worst, std::abs(sum - p.product[m * N + n]) / size);
            }
    }
    EXPECT_LT(worst, tolerance);
    EXPECT_GT(worst, 0);
}

template <class X> void check_variants() {
    Restore restore;
    for (auto [N, K] : SHAPES) {
        set_gemm_variant("auto");
        int64_t M = K > 1000 ? 15 : 31;
        Problem<X> p(M, N, K);
        std::vector<bf16> bias(N, bf16(0.5f)), residual(M * N, bf16(-1.25f)), full(M * N),
            first(M * N, bf16(1.0f));
        auto finished = [&](std::vector<bf16>& C) {
            GemmArgs g = p.args(C.data(), true);
            g.out = Dtype::bf16, g.bias = bias.data(), g.bias_dtype = Dtype::bf16,
            g.residual = residual.data();
            g.accumulate = true, g.activation = Epilogue::gelu_tanh;
            gemm(g);
        };
        full = first, finished(full);
        for (auto& name : gemm_variants()) {
            set_gemm_variant(name);
            ASSERT_EQ(gemm_variant(), name);
            all_ways(p, PackedWeight(p.b.data(), 0, N, K, dtype_of<X>), M, 0);
            std::vector<bf16> C = first;
            finished(C);
            EXPECT_TRUE(same(C, full)) << name << " epilogue, N " << N << " K " << K;
        }
    }
}

template <class X, class Out> void check_epilogues() {
    Problem<X> p(37, 70, 512);
    const int64_t n = p.M * p.N;
    Random random(3, "epilogue");
    std::vector<float> bias(p.N);
    std::vector<Out> residual(n), before(n), C(n), expected(n);
    for (int64_t i = 0; i < p.N; i++) bias[i] = float(random.normal(i));
    for (int64_t i = 0; i < n; i++)
        residual[i] = Out(float(random.normal(1000 + i))), before[i] = Out(float(random.normal(100000 + i)));
    GemmArgs g = p.args(C.data(), true);
    g.out = dtype_of<Out>;
    gemm(g);
    for (int64_t i = 0; i < n; i++) expected[i] = Out(p.product[i]);
    EXPECT_TRUE(same(C, expected)) << "store";
    g.accumulate = true, C = before;
    gemm(g);
    for (int64_t i = 0; i < n; i++) expected[i] = Out(float(before[i]) + p.product[i]);
    EXPECT_TRUE(same(C, expected)) << "accumulate";
    g.bias = bias.data(), C = before;
    gemm(g);
    for (int64_t i = 0; i < n; i++) expected[i] = Out(float(before[i]) + (p.product[i] + bias[i % p.N]));
    EXPECT_TRUE(same(C, expected)) << "bias, accumulate";
    g.residual = residual.data(), g.accumulate = false;
    gemm(g);
    for (int64_t i = 0; i < n; i++) expected[i] = Out(p.product[i] + bias[i % p.N] + float(residual[i]));
    EXPECT_TRUE(same(C, expected)) << "bias, residual";
    C = residual, g.residual = C.data(); // in place
    gemm(g);
    EXPECT_TRUE(same(C, expected)) << "residual in place";
    g.residual = nullptr, g.activation = Epilogue::gelu_tanh;
    gemm(g);
    for (int64_t i = 0; i < n; i++) {
        double x = p.product[i] + bias[i % p.N], u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
        double gelu = 0.5 * x * (1 + std::tanh(u));
        ASSERT_NEAR(float(C[i]), gelu, (sizeof(Out) == 2 ? 4e-3 : 1e-6) * (1 + std::abs(gelu))) << x;
    }
}

} // namespace

TEST(Gemm, Order) {
    EXPECT_EQ(gemm_order(768).leaf, 192);
    EXPECT_EQ(gemm_order(1024).leaves, 4);
    EXPECT_EQ(gemm_order(4096).leaves, 8);
    EXPECT_EQ(gemm_order(770).leaves, 1); // 385 would be odd
    EXPECT_EQ(gemm_order(0).leaves, 1);
}
TEST(Gemm, BitsF32) { check_bits<float>(); }
TEST(Gemm, BitsBf16) { check_bits<bf16>(); }
TEST(Gemm, DefinitionF32) { check_definition<float>(2e-7); }
TEST(Gemm, DefinitionBf16) { check_definition<bf16>(2e-7); }
TEST(Gemm, VariantsF32) { check_variants<float>(); }
TEST(Gemm, VariantsBf16) { check_variants<bf16>(); }
TEST(Gemm, EpiloguesF32) { check_epilogues<float, float>(); }
TEST(Gemm, EpiloguesBf16) { check_epilogues<bf16, bf16>(); }
TEST(Gemm, EpiloguesBf16ToF32) { check_epilogues<bf16, float>(); }

// Long leaves go through memory in pieces, large A in chunks: still the definition.
TEST(Gemm, CacheBlocks) {
    Problem<float> p(150, 40, 17176), q(1300, 40, 1024);
    for (int64_t m : {0, 77, 149}) EXPECT_EQ(p.scalar(m, 39), p.product[m * p.N + 39]);
    for (int64_t m : {0, 1023, 1024, 1025, 1299}) EXPECT_EQ(q.scalar(m, 17), q.product[m * q.N + 17]);
}

TEST(Gemm, SplitOverRanksIsTheSameTree) {
    const int64_t M = 20, N = 64, K = 3072;
    Problem<bf16> p(M, N, K);
    for (int ranks : {2, 4, 8}) {
        std::vector<std::vector<float>> part(ranks, std::vector<float>(M * N));
        for (int rank = 0; rank < ranks; rank++) {
            GemmArgs g = p.args(part[rank].data(), true);
            g.K = K / ranks, g.lda = g.ldb = K, g.leaves = gemm_order(K).leaves / ranks;
            g.A = p.a.data() + rank * g.K, g.B = p.b.data() + rank * g.K;
            gemm(g);
        }
        for (int step = 1; step < ranks; step *= 2)
            for (int rank = 0; rank < ranks; rank += 2 * step)
                for (int64_t i = 0; i < M * N; i++) part[rank][i] = part[rank][i] + part[rank + step][i];
        EXPECT_TRUE(same(part[0], p.product)) << ranks << " ranks";
    }
}

TEST(Gemm, Swiglu) {
    const int64_t M = 19, F = 53, K = 128;
    Problem<bf16> gate(M, F, K);
    std::vector<bf16> up_weight(gate.b.rbegin(), gate.b.rend());
    std::vector<float> up(M * F);
    GemmArgs g = gate.args(up.data(), true);
    g.B = up_weight.data();
    gemm(g);
    for (auto& name : gemm_variants()) {
        Restore restore;
        set_gemm_variant(name);
        PackedWeight both(gate.b.data(), up_weight.data(), 0, F, K, Dtype::bf16);
        std::vector<float> C(M * F + 8, 7.0f);
        GemmArgs f = gate.args(C.data(), true);
        f.N = 2 * F, f.packed = &both, f.activation = Epilogue::swiglu;
        gemm(f);
        for (int64_t i = 0; i < M * F; i++) {
            double x = gate.product[i], expected = x / (1 + std::exp(-x)) * up[i];
            ASSERT_NEAR(C[i], expected, 1e-6 * (1 + std::abs(expected))) << name << " " << i;
        }
        for (int i = 0; i < 8; i++) EXPECT_EQ(C[M * F + i], 7.0f);
    }
}

TEST(Gemm, Double) {
    Problem<float> p(9, 45, 768);
    std::vector<double> a(p.a.begin(), p.a.end()), bt(p.bt.begin(), p.bt.end()), b(p.b.begin(), p.b.end());
    std::vector<double> C(9 * 45, 2.0), D(9 * 45), bias(45, 0.25);
    GemmArgs g{.M = 9, .N = 45, .K = 768, .in = Dtype::f64, .out = Dtype::f64};
    g.A = a.data(), g.B = bt.data(), g.C = C.data(), g.accumulate = true, g.bias = bias.data();
    g.bias_dtype = Dtype::f64;
    gemm(g);
    GemmArgs h{.M = 9, .N = 45, .K = 768, .trans_b = true, .in = Dtype::f64, .out = Dtype::f64};
    h.A = a.data(), h.B = b.data(), h.C = D.data();
    gemm(h);
    for (size_t i = 0; i < C.size(); i++) {
        EXPECT_NEAR(D[i], p.product[i], 1e-4);
        EXPECT_EQ(C[i], 2.0 + (D[i] + 0.25));
    }
}

TEST(Gemm, DenormalsAreZeroInEveryVariant) {
    Restore restore;
    std::vector<bf16> a(8 * 64, bf16(1e-20f)), b(32 * 64, bf16(1e-20f)), tiny(8 * 64, bf16(1e-39f));
    for (auto& name : gemm_variants()) {
        set_gemm_variant(name);
        std::vector<float> C(8 * 32, 1.0f);
        GemmArgs g{.M = 8, .N = 32, .K = 64, .A = a.data(), .B = b.data(), .trans_b = true, .C = C.data()};
        g.in = Dtype::bf16;
        gemm(g);
        for (float c : C) EXPECT_EQ(c, 0) << name;
        std::vector<bf16> large(32 * 64, bf16(1e30f));
        g.A = tiny.data(), g.B = large.data();
        gemm(g);
        for (float c : C) EXPECT_EQ(c, 0) << name;
    }
    volatile float small = 1e-20f;
    EXPECT_GT(small * small, 0) << "but only inside gemm";
}

TEST(Gemm, EmptySumsAndSizes) {
    std::vector<float> bias = {1, 2, 3}, C(6, 9.0f);
    gemm({.M = 2, .N = 3, .K = 0, .C = C.data(), .bias = bias.data()});
    EXPECT_EQ(C, (std::vector<float>{1, 2, 3, 1, 2, 3}));
    gemm({.M = 0, .N = 3, .K = 4});
}

TEST(Gemm, Onednn) {
#ifdef NVL_ONEDNN
    Restore restore;
    Problem<float> p(33, 50, 256);
    std::vector<float> C(33 * 50, 1.0f), bias(50, 0.5f);
    set_gemm_backend("onednn");
    GemmArgs g = p.args(C.data(), false, true);
    g.bias = bias.data(), g.accumulate = true;
    gemm(g);
    for (size_t i = 0; i < C.size(); i++) ASSERT_NEAR(C[i], p.product[i] + 1.5f, 1e-4);
    PackedWeight packed(p.b.data(), 0, 50, 256, Dtype::f32);
    g.packed = &packed;
    EXPECT_THROW(gemm(g), Error);
#else
    EXPECT_THROW(set_gemm_backend("onednn"), Error);
#endif
}

TEST(Gemm, ErrorsAreClear) {
    std::vector<float> x(16);
    GemmArgs g{.M = 2, .N = 2, .K = 4, .A = x.data(), .B = x.data(), .C = x.data()};
    auto message = [](const GemmArgs& args) -> std::string {
        try {
            gemm(args);
        } catch (const Error& e) {
            return e.what();
        }
        return "";
    };
    GemmArgs bad = g;
    bad.lda = 3;
    EXPECT_EQ(message(bad), "gemm: the leading dimension of A is 3, shorter than its row of 4");
    bad = g, bad.out = Dtype::f64;
    EXPECT_EQ(message(bad), "gemm: f32 inputs cannot give f64");
    bad = g, bad.B = nullptr;
    EXPECT_EQ(message(bad), "gemm: B is null");
    bad = g, bad.activation = Epilogue::swiglu;
    EXPECT_EQ(message(bad), "gemm: swiglu needs a weight packed from gate and up");
    PackedWeight packed(x.data(), 0, 4, 4, Dtype::f32);
    bad = g, bad.packed = &packed;
    EXPECT_EQ(message(bad), "gemm: the packed weight is (4,4) f32, expected (2,4) f32");
    EXPECT_THROW(set_gemm_variant("mmx"), Error);
    EXPECT_THROW(set_gemm_backend("blas"), Error);
}

TEST(Gemm, PeakIsMeasured) {
    EXPECT_GT(gemm_peak_gflops(Dtype::f32), 0.1);
    EXPECT_GT(gemm_peak_gflops(Dtype::bf16), 0.1);
}
