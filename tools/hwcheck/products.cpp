// cuda_gemm's backends: the library against our kernels and both against double, which configurations the
// library refuses, and how fast they are.
#include <array>
#include <cmath>

#include "engine/base/rng.h"
#include "kernels/linear/gemm_cuda.h"
#include "tools/hwcheck/device_memory.h"
#include "tools/hwcheck/report.h"

namespace nvl::hw {

namespace {

using Values = std::vector<double>;

Values numbers(int64_t n, const char* key) { // bf16 holds them
    Random random(1, key);
    Values v(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; i++) v[size_t(i)] = float(bf16(float(random.normal(uint64_t(i)))));
    return v;
}
Values transposed(const Values& v, int64_t cols) {
    Values t(v.size());
    int64_t rows = int64_t(v.size()) / cols;
    for (int64_t i = 0; i < rows * cols; i++) t[size_t(i % cols * rows + i / cols)] = v[size_t(i)];
    return t;
}
double distance(const Values& a, const Values& b) { // relative to the norm of b; infinite for NaN
    double d = 0, n = 0;
    for (size_t i = 0; i < b.size(); i++) d += (a[i] - b[i]) * (a[i] - b[i]), n += b[i] * b[i];
    double r = std::sqrt(d / n);
    return r < INFINITY ? r : INFINITY;
}

struct Types {
    Dtype in, out;
    const char* name;
};
constexpr Types TYPES[] = {{Dtype::f32, Dtype::f32, "f32"},
                           {Dtype::bf16, Dtype::f32, "bf16 to f32"},
                           {Dtype::bf16, Dtype::bf16, "bf16"}};

struct Product {
    int64_t M = 64, N = 96, K = 128;
    Types types = TYPES[0];
    bool trans_a = false, trans_b = true;
    int64_t gap = 0; // behind rows of all matrices
    bool bias = false, other_bias = false, gelu = false, residual = false, accumulate = false;
};
std::string layout_of(const Product& p) { return {p.trans_a ? 'T' : 'N', p.trans_b ? 'T' : 'N'}; }

struct Backend {
    explicit Backend(const char* name) : before(cuda_gemm_backend()) { set_cuda_gemm_backend(name); }
    ~Backend() { set_cuda_gemm_backend(before); }
    std::string before;
};

/// a (M,K) by rows, b (N,K) by rows.
Values multiply(const char* backend, const Product& p, const Values& a, const Values& b) {
    Backend chosen(backend);
    Dtype in = p.types.in, out = p.types.out, bias_dtype = out;
    if (p.other_bias) bias_dtype = out == Dtype::f32 ? Dtype::bf16 : Dtype::f32;
    int64_t lda = p.trans_a ? p.M : p.K, ldb = p.trans_b ? p.K : p.N;
    Buffer A(p.trans_a ? transposed(a, p.K) : a, lda, p.gap, in);
    Buffer B(p.trans_b ? b : transposed(b, p.K), ldb, p.gap, in);
    Buffer C(numbers(p.M * p.N, "C"), p.N, p.gap, out), R(numbers(p.M * p.N, "residual"), p.N, p.gap, out);
    Buffer bias(numbers(p.N, "bias"), p.N, 0, bias_dtype);
    GemmArgs g{.M = p.M, .N = p.N, .K = p.K};
    g.A = A.as<void>(), g.lda = lda + p.gap, g.trans_a = p.trans_a;
    g.B = B.as<void>(), g.ldb = ldb + p.gap, g.trans_b = p.trans_b;
    g.C = C.as<void>(), g.ldc = p.N + p.gap, g.in = in, g.out = out, g.accumulate = p.accumulate;
    if (p.bias) g.bias = bias.as<void>(), g.bias_dtype = bias_dtype;
    if (p.residual) g.residual = R.as<void>(), g.ldr = p.N + p.gap;
    if (p.gelu) g.activation = Epilogue::gelu_tanh;
    cuda_gemm(g);
    check_launch("a product");
    return C.matrix(p.M, p.N, p.gap, out);
}

double tolerance(const Product& p) { return p.types.out == Dtype::bf16 ? 8e-3 : p.gelu ? 2e-3 : 1e-5; }

void check_values(Report& r, const Setting& s) {
    std::vector<std::array<int64_t, 3>> shapes{{64, 96, 128}, {136, 40, 72}};
    if (!s.quick) shapes.push_back({512, 768, 768});
    for (auto [M, N, K] : shapes) {
        Values a = numbers(M * K, "A"), b = numbers(N * K, "B"), c(size_t(M * N));
        for (int64_t m = 0; m < M; m++)
            for (int64_t n = 0; n < N; n++)
                for (int64_t k = 0; k < K; k++)
                    c[size_t(m * N + n)] += a[size_t(m * K + k)] * b[size_t(n * K + k)];
        for (const Types& types : TYPES) {
            double own = 0, library = 0, between = 0;
            Product p{.M = M, .N = N, .K = K, .types = types};
            for (auto [ta, tb] : {std::pair{false, true}, {false, false}, {true, false}}) {
                p.trans_a = ta, p.trans_b = tb;
                Values x = multiply("own", p, a, b), y = multiply("cublaslt", p, a, b);
                own = std::max(own, distance(x, c)), library = std::max(library, distance(y, c));
                between = std::max(between, distance(y, x));
            }
            r.check_that(std::max({own, library, between}) <= tolerance(p),
                         format("%ldx%ldx%ld %s, NT NN TN", long(M), long(N), long(K), types.name),
                         format("ours off by %.1e, cublasLt by %.1e, each other %.1e", own, library, between),
                         {{"own_error", own}, {"cublaslt_error", library}, {"difference", between}});
        }
    }
}

struct Form {
    const char* name;
    void (*change)(Product&);
};
constexpr Form FORMS[] = {{"plain", [](Product&) {}},
                          {"rows not aligned", [](Product& p) { p.gap = 1; }},
                          {"odd sizes", [](Product& p) { p.M = 33, p.N = 17, p.K = 71; }},
                          {"M = 1", [](Product& p) { p.M = 1; }},
                          {"bias", [](Product& p) { p.bias = true; }},
                          {"bias of the other type", [](Product& p) { p.bias = p.other_bias = true; }},
                          {"gelu", [](Product& p) { p.gelu = true; }},
                          {"gelu and bias", [](Product& p) { p.gelu = p.bias = true; }},
                          {"residual", [](Product& p) { p.residual = true; }},
                          {"accumulate", [](Product& p) { p.accumulate = true; }},
                          {"accumulate and bias", [](Product& p) { p.accumulate = p.bias = true; }},
                          {"accumulate and gelu", [](Product& p) { p.accumulate = p.gelu = true; }},
                          {"accumulate and residual", [](Product& p) { p.accumulate = p.residual = true; }}};

/// Every form in every type and layout: what the library takes must equal ours; what it refuses is recorded.
void check_forms(Report& r) {
    for (const Form& form : FORMS) {
        int accepted = 0, refused = 0;
        double worst = 0;
        bool ok = true;
        std::string why;
        for (const Types& types : TYPES)
            for (int layout = 0; layout < 4; layout++) {
                Product p{.types = types, .trans_a = bool(layout & 1), .trans_b = bool(layout & 2)};
                form.change(p);
                Values a = numbers(p.M * p.K, "A"), b = numbers(p.N * p.K, "B"), found;
                Json row = {{"form", form.name}, {"types", types.name}, {"layout", layout_of(p)}};
                try {
                    found = multiply("cublaslt", p, a, b);
                } catch (const Error& e) {
                    refused++, why = e.what();
                    row["refused"] = why;
                    r.json["cublaslt"].push_back(row);
                    continue;
                }
                accepted++;
                double d = distance(found, multiply("own", p, a, b));
                worst = std::max(worst, d), ok &= d <= tolerance(p);
                row["difference"] = d;
                r.json["cublaslt"].push_back(row);
            }
        if (form.name == FORMS[0].name) ok &= refused == 0;
        std::string text = format("%d accepted, off by %.1e; %d refused", accepted, worst, refused);
        r.check_that(ok, form.name, refused ? text + ": " + why : text,
                     {{"accepted", accepted}, {"refused", refused}});
    }
}

} // namespace

void check_products(Report& r, const Setting& s) {
    check_values(r, s);
    check_forms(r);
}

void measure_products(Report& r, const Setting& s) {
    using Shape = std::array<int64_t, 3>;
    std::vector<Shape> shapes{{4096, 4096, 4096}, {8192, 3072, 768}};
    if (s.is_virtual)
        shapes = {{128, 128, 128}};
    else if (!s.quick)
        shapes.insert(shapes.end(),
                      {{8192, 8192, 8192}, {16384, 4096, 4096}, {8192, 50304, 768}, {16, 8192, 8192}});
    int major = 0;
    cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "the architecture");
    std::vector<const char*> backends{"own", "cublaslt"};
    if (major == 9 && cuda_gemm_has_hopper()) backends.push_back("hopper");
    for (const Types& t : {TYPES[0], TYPES[2]}) {
        double peak = backend_of(Device::cuda).peak_flops(t.in == Dtype::bf16);
        for (auto [M, N, K] : shapes) {
            Buffer A(numbers(M * K, "A"), K, 0, t.in), B(numbers(N * K, "B"), K, 0, t.in),
                C(M * N * size_of(t.out));
            GemmArgs g{.M = M, .N = N, .K = K};
            g.A = A.as<void>(), g.B = B.as<void>(), g.trans_b = true, g.C = C.as<void>(), g.in = t.in,
            g.out = t.out;
            std::string text;
            Json row = {{"types", t.name}, {"measured", !s.is_virtual}, {"M", M}, {"N", N},
                        {"K", K},          {"peak_flops", peak}};
            for (const char* name : backends) {
                if (std::string(name) == "hopper" && t.in != Dtype::bf16) continue;
                Backend chosen(name);
                double flops =
                    2.0 * double(M) * double(N) * double(K) / seconds_of([&] { cuda_gemm(g); }, s.is_virtual);
                row[name] = flops;
                text += format("%s%s %.1f TFLOP/s (%.0f %%)", text.empty() ? "" : ", ", name, flops * 1e-12,
                               100 * flops / peak);
            }
            r.json["products"].push_back(row);
            r.note(format("%ldx%ldx%ld %s", long(M), long(N), long(K), t.name), text);
        }
    }
}

} // namespace nvl::hw
