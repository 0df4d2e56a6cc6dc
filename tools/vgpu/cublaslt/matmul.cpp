// cublasLtMatmul: the rules of the real library as far as they are documented, then the product on the host
// as an op of the stream. What is not known here is refused, never guessed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "tools/vgpu/cublaslt/descriptors.h"
#include "tools/vgpu/cublaslt/product.h"
#include "tools/vgpu/cudart/copy.h"
#include "tools/vgpu/cudart/runtime.h"

struct cublasLtContext {
    int device;
};

using namespace vgpu;
using namespace vgpu::cuda;
using namespace vgpu::cublaslt;

namespace {

struct No {
    cublasStatus_t status;
    std::string why;
    bool finding = false;
};
[[noreturn]] void not_supported(const std::string& why) { throw No{CUBLAS_STATUS_NOT_SUPPORTED, why}; }
[[noreturn]] void invalid(const std::string& why) { throw No{CUBLAS_STATUS_INVALID_VALUE, why, true}; }

template <class F> cublasStatus_t guarded(const char* name, F body) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    std::string why;
    try {
        body(r);
        return CUBLAS_STATUS_SUCCESS;
    } catch (const No& n) {
        if (n.finding) r.finding(Fault::api, name, n.why);
        r.why = n.why;
        if (r.options.verbose) std::fprintf(stderr, "vgpu: %s: %s\n", name, n.why.c_str());
        return n.status;
    } catch (const Refusal& e) {
        r.failed(name, e);
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
}

bool has(uint32_t epilogue, uint32_t bits) { return (epilogue & bits) == bits; }
constexpr uint32_t BIAS = CUBLASLT_EPILOGUE_BIAS, RELU = CUBLASLT_EPILOGUE_RELU,
                   GELU = CUBLASLT_EPILOGUE_GELU, AUX = 128, DGELU = CUBLASLT_EPILOGUE_DGELU, BGRAD = 16;

Type type_of(uint32_t t) {
    if (t == CUDA_R_32F) return Type::f32;
    if (t == CUDA_R_16F) return Type::f16;
    if (t == CUDA_R_16BF) return Type::bf16;
    not_supported("element type " + std::to_string(t) + ": there are f32, f16 and bf16");
}

/// A checked problem, by value: the caller may change his descriptors after the call.
struct Problem {
    MatmulDesc desc;
    Layout a, b, c, d;
    Type ta, tb, tc, td;
    int64_t m, n, k;
    int batch;

    int64_t aux_bytes() const { return int64_t(bytes_of(aux_type())); }
    Type aux_type() const { return desc.aux_type < 0 ? td : type_of(uint32_t(desc.aux_type)); }
    Type bias_type() const { return desc.bias_type < 0 ? td : type_of(uint32_t(desc.bias_type)); }
    uint64_t hash() const {
        MatmulDesc plain = desc; // pointers and their alignment may change between calls
        plain.bias = plain.aux = 0;
        uint64_t h = 14695981039346656037ull;
        auto mix = [&](const void* p, size_t bytes) {
            for (size_t i = 0; i < bytes; i++) h = (h ^ static_cast<const uint8_t*>(p)[i]) * 1099511628211ull;
        };
        int64_t all[] = {plain.compute,
                         plain.scale,
                         plain.transa,
                         plain.transb,
                         plain.epilogue,
                         plain.aux_ld,
                         m,
                         n,
                         k,
                         batch,
                         a.ld,
                         b.ld,
                         c.ld,
                         d.ld,
                         int64_t(ta),
                         int64_t(tb),
                         int64_t(tc),
                         int64_t(td)};
        mix(all, sizeof all);
        return h;
    }
};

bool known_epilogue(uint32_t e) {
    for (uint32_t k : {uint32_t(CUBLASLT_EPILOGUE_DEFAULT), RELU, BIAS, RELU | BIAS, GELU, GELU | BIAS,
                       GELU | AUX, GELU | AUX | BIAS, DGELU, DGELU | BGRAD,
                       uint32_t(CUBLASLT_EPILOGUE_BGRADA), uint32_t(CUBLASLT_EPILOGUE_BGRADB)})
        if (e == k) return true;
    return false;
}

void check_types(const Problem& p) {
    if (p.desc.compute != CUBLAS_COMPUTE_32F && p.desc.compute != CUBLAS_COMPUTE_32F_FAST_TF32)
        not_supported("compute type " + std::to_string(p.desc.compute) + ": there are 32F and 32F_FAST_TF32");
    if (p.desc.scale != CUDA_R_32F) not_supported("a scale type that is not f32");
    if (p.ta != p.tb) not_supported("A and B of different types");
    if (p.tc != p.td) not_supported("C and D of different types");
    if (p.td != p.ta && p.td != Type::f32) not_supported("D must be of A's type or f32");
    if (p.desc.pointer_mode != CUBLASLT_POINTER_MODE_HOST) not_supported("alpha and beta on the device");
    if (p.desc.transc != CUBLAS_OP_N) not_supported("a transposed C");
    if (p.desc.fill != CUBLAS_FILL_MODE_FULL) not_supported("a fill mode");
    for (int32_t t : {p.desc.transa, p.desc.transb})
        if (t != CUBLAS_OP_N && t != CUBLAS_OP_T) not_supported("a transformation that is not N or T");
}

void check_layout(const char* name, const Layout& l) {
    std::string who(name);
    if (l.order != CUBLASLT_ORDER_COL) not_supported(who + ": an order that is not by columns");
    if (l.rows == 0 || l.cols == 0) invalid(who + " is empty");
    if (l.ld < int64_t(l.rows))
        invalid(who + ": leading dimension " + std::to_string(l.ld) + " for " + std::to_string(l.rows) +
                " rows");
    if (l.batch < 1) invalid(who + ": a batch count of " + std::to_string(l.batch));
}

void check_epilogue(const Problem& p) {
    uint32_t e = p.desc.epilogue;
    if (!known_epilogue(e)) not_supported("epilogue " + std::to_string(e));
    if (p.desc.bias_type >= 0 && p.bias_type() != p.td) not_supported("a bias of another type than D");
    if (e & AUX) {
        if (p.desc.aux_ld < p.m || p.desc.aux_ld % 8)
            invalid("CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD is " + std::to_string(p.desc.aux_ld) +
                    ": a multiple of 8 and at least " + std::to_string(p.m) + " (rows of D)");
        if (p.batch > 1 && p.desc.aux_stride % 8)
            invalid("the auxiliary matrix' batch stride is no multiple of 8");
        if (p.aux_type() != p.td) not_supported("an auxiliary matrix of another type than D");
    }
    if (p.batch > 1 && (e & (256u | 512u))) not_supported("bias gradients of A or B in batches");
}

Problem problem_of(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                   cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
    if (!desc || !a || !b || !c || !d) invalid("a descriptor is null");
    Problem p{*inside<MatmulDesc>(desc),
              *inside<Layout>(a),
              *inside<Layout>(b),
              *inside<Layout>(c),
              *inside<Layout>(d),
              {},
              {},
              {},
              {},
              0,
              0,
              0,
              0};
    p.ta = type_of(p.a.type), p.tb = type_of(p.b.type), p.tc = type_of(p.c.type), p.td = type_of(p.d.type);
    check_types(p);
    check_layout("A", p.a), check_layout("B", p.b), check_layout("C", p.c), check_layout("D", p.d);
    bool ta = p.desc.transa == CUBLAS_OP_T, tb = p.desc.transb == CUBLAS_OP_T;
    p.m = int64_t(p.d.rows), p.n = int64_t(p.d.cols), p.k = int64_t(ta ? p.a.rows : p.a.cols);
    auto is = [](const Layout& l, int64_t rows, int64_t cols) {
        return int64_t(l.rows) == rows && int64_t(l.cols) == cols;
    };
    if (!is(p.a, ta ? p.k : p.m, ta ? p.m : p.k) || !is(p.b, tb ? p.n : p.k, tb ? p.k : p.n) ||
        !is(p.c, p.m, p.n))
        invalid("the shapes do not fit: op(A) must be (m, k), op(B) (k, n), C and D (m, n)");
    p.batch = p.d.batch;
    if (p.a.batch != p.batch || p.b.batch != p.batch || p.c.batch != p.batch)
        invalid("the batch counts differ");
    if (p.batch > 1 && std::abs(p.d.batch_stride) < p.d.ld * (p.n - 1) + p.m)
        invalid("the batches of D overlap");
    check_epilogue(p);
    return p;
}

constexpr uint64_t WORKSPACE = 1 << 20; // what the heuristic asks for when it may

Algo choose(const Problem& p, const Preference& pref) {
    Algo a{ALGO_MAGIC, {}, std::min(pref.workspace, WORKSPACE) / 256 * 256, p.hash()};
    Type types[] = {p.ta, p.tb, p.tc, p.td};
    for (int i = 0; i < 4; i++) {
        a.align[i] = pref.align[i];
        if (a.align[i] < bytes_of(types[i]) || (a.align[i] & (a.align[i] - 1)))
            invalid("an alignment of " + std::to_string(a.align[i]) +
                    " bytes is less than an element, or no power of two");
    }
    return a;
}

uint64_t at(const void* p) { return reinterpret_cast<uint64_t>(p); }
uint64_t extent(const Layout& l, Type t) { return (uint64_t(l.ld) * (l.cols - 1) + l.rows) * bytes_of(t); }

/// One call: what runs later on the stream.
struct Call {
    Problem p;
    float alpha, beta;
    uint64_t a, b, c, d, workspace;
    size_t workspace_bytes;
    int threads;

    void run(Op&) const;
    void one(int batch) const;
    void epilogue(int batch, const float* sums) const;
    void bias_gradient(int batch, const Operand& a, const Operand& b) const;
};

/// Columns one by one: what lies between them (ld > rows) is not read. False: out of bounds.
bool touch(const std::string& what, uint64_t address, const Layout& l, Type t, bool reads) {
    size_t bytes = size_t(l.rows) * bytes_of(t), pitch = size_t(l.ld) * bytes_of(t);
    if (bytes == pitch) return check_touch(what, address, bytes * l.cols, reads);
    for (uint64_t j = 0; j < l.cols; j++)
        if (!check_touch(what, address + j * pitch, bytes, reads)) return false;
    return true;
}

void written(uint64_t address, const Layout& l, Type t) {
    size_t pitch = size_t(l.ld) * bytes_of(t);
    if (DeviceMemory* m = DeviceMemory::of(address))
        for (uint64_t j = 0; j < l.cols; j++)
            m->mark_written(address + j * pitch, size_t(l.rows) * bytes_of(t));
}

Layout vector_of(int64_t n) {
    Layout l{};
    l.rows = uint64_t(n), l.cols = 1, l.ld = n, l.batch = 1;
    return l;
}

float gelu(float x) {
    float u = 0.79788456f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1 + std::tanh(u));
}
float gelu_slope(float x) {
    float u = 0.79788456f * (x + 0.044715f * x * x * x), t = std::tanh(u);
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456f * (1 + 3 * 0.044715f * x * x);
}

uint64_t in_batch(uint64_t base, int64_t stride, int batch, Type t) {
    return base + uint64_t(stride * batch) * bytes_of(t);
}

void Call::epilogue(int i, const float* sums) const {
    uint32_t e = p.desc.epilogue;
    auto* to = reinterpret_cast<void*>(in_batch(d, p.d.batch_stride, i, p.td));
    auto* from = reinterpret_cast<const void*>(in_batch(c, p.c.batch_stride, i, p.tc));
    auto* bias = reinterpret_cast<void*>(in_batch(p.desc.bias, p.desc.bias_stride, i, p.bias_type()));
    auto* aux = reinterpret_cast<void*>(in_batch(p.desc.aux, p.desc.aux_stride, i, p.aux_type()));
    std::vector<float> gradient(has(e, BGRAD) ? size_t(p.m) : 0);
    for (int64_t col = 0; col < p.n; col++)
        for (int64_t row = 0; row < p.m; row++) {
            float x = alpha * sums[row + col * p.m];
            if (beta != 0) x += beta * get(p.tc, from, size_t(row + col * p.c.ld));
            if (has(e, BIAS) && e < 256) x += get(p.bias_type(), bias, size_t(row));
            size_t at_aux = size_t(row + col * p.desc.aux_ld);
            if (has(e, DGELU))
                x *= gelu_slope(get(p.aux_type(), aux, at_aux));
            else if (e & AUX)
                set(p.aux_type(), aux, at_aux, x);
            if (has(e, GELU)) x = gelu(x);
            if (has(e, RELU)) x = std::max(x, 0.f);
            if (has(e, BGRAD)) gradient[size_t(row)] += x;
            set(p.td, to, size_t(row + col * p.d.ld), x);
        }
    for (size_t row = 0; row < gradient.size(); row++) set(p.bias_type(), bias, row, gradient[row]);
}

// Sums over k of op(A) by row, or of op(B) by column.
void Call::bias_gradient(int, const Operand& x, const Operand& y) const {
    bool of_a = p.desc.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    const Operand& o = of_a ? x : y;
    for (int64_t i = 0; i < (of_a ? p.m : p.n); i++) {
        float sum = 0;
        for (int64_t k = 0; k < p.k; k++) {
            int64_t row = of_a ? i : k, col = of_a ? k : i;
            sum += get(o.type, o.data, size_t(o.transposed ? col + row * o.ld : row + col * o.ld));
        }
        set(p.bias_type(), reinterpret_cast<void*>(p.desc.bias), size_t(i), sum);
    }
}

void Call::one(int i) const {
    uint32_t e = p.desc.epilogue;
    uint64_t ai = in_batch(a, p.a.batch_stride, i, p.ta), bi = in_batch(b, p.b.batch_stride, i, p.tb);
    uint64_t ci = in_batch(c, p.c.batch_stride, i, p.tc), di = in_batch(d, p.d.batch_stride, i, p.td);
    uint64_t bias = in_batch(p.desc.bias, p.desc.bias_stride, i, p.bias_type());
    uint64_t aux = in_batch(p.desc.aux, p.desc.aux_stride, i, p.aux_type());
    Layout aux_layout = p.d, bias_layout = vector_of(e == CUBLASLT_EPILOGUE_BGRADB ? p.n : p.m);
    aux_layout.ld = p.desc.aux_ld;
    bool uses_bias = has(e, BIAS) || has(e, BGRAD) || e >= 256, reads_bias = has(e, BIAS) && e < 256;
    if (!touch("cublasLtMatmul, A", ai, p.a, p.ta, true) || !touch("cublasLtMatmul, B", bi, p.b, p.tb, true))
        return;
    if (beta != 0 && !touch("cublasLtMatmul, C", ci, p.c, p.tc, true)) return;
    if (!touch("cublasLtMatmul, D", di, p.d, p.td, false)) return;
    if (uses_bias && !touch("cublasLtMatmul, bias", bias, bias_layout, p.bias_type(), reads_bias)) return;
    if ((e & AUX) && !touch("cublasLtMatmul, aux", aux, aux_layout, p.aux_type(), has(e, DGELU))) return;

    bool tf32 = p.desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && p.ta == Type::f32;
    Operand x{reinterpret_cast<void*>(ai), p.ta, p.a.ld, p.desc.transa == CUBLAS_OP_T, tf32};
    Operand y{reinterpret_cast<void*>(bi), p.tb, p.b.ld, p.desc.transb == CUBLAS_OP_T, tf32};
    std::vector<float> sums(size_t(p.m * p.n));
    product(sums.data(), x, y, p.m, p.n, p.k, threads);
    epilogue(i, sums.data());
    if (e >= 256) bias_gradient(i, x, y);

    written(di, p.d, p.td);
    if (uses_bias && !reads_bias) written(bias, bias_layout, p.bias_type());
    if ((e & AUX) && !has(e, DGELU)) written(aux, aux_layout, p.aux_type());
}

void Call::run(Op&) const {
    DeviceMemory* memory = DeviceMemory::of(d);
    Unlocked unlocked(*memory);
    if (workspace_bytes && check_touch("cublasLtMatmul, workspace", workspace, workspace_bytes, false))
        std::memset(reinterpret_cast<void*>(workspace), 0xff,
                    workspace_bytes); // a split over k would write here
    for (int i = 0; i < p.batch; i++) one(i);
}

void add(Work& w, uint64_t address, const Layout& l, Type t, bool write) {
    int64_t stride = l.batch > 1 ? l.batch_stride : 0;
    for (int i = 0; i < l.batch; i++)
        w.touches.push_back({in_batch(address, stride, i, t), extent(l, t), write});
}

Work work_of(std::shared_ptr<Call> call) {
    const Problem& p = call->p;
    uint32_t e = p.desc.epilogue;
    Work w;
    w.kind = WorkKind::library;
    w.what = "cublasLtMatmul (" + std::to_string(p.m) + "," + std::to_string(p.n) + "," +
             std::to_string(p.k) + ")";
    add(w, call->a, p.a, p.ta, false), add(w, call->b, p.b, p.tb, false), add(w, call->d, p.d, p.td, true);
    if (call->beta != 0 && call->c != call->d) add(w, call->c, p.c, p.tc, false);
    if (has(e, BIAS) || has(e, BGRAD) || e >= 256) {
        Layout l = vector_of(e == CUBLASLT_EPILOGUE_BGRADB ? p.n : p.m);
        l.batch = p.batch, l.batch_stride = p.desc.bias_stride;
        add(w, p.desc.bias, l, p.bias_type(), !has(e, BIAS) || e >= 256);
    }
    if (e & AUX) {
        Layout l = p.d;
        l.ld = p.desc.aux_ld, l.batch_stride = p.desc.aux_stride;
        add(w, p.desc.aux, l, p.aux_type(), !has(e, DGELU));
    }
    if (call->workspace_bytes) w.touches.push_back({call->workspace, call->workspace_bytes, true});
    w.run = [call](Op& op) { call->run(op); };
    return w;
}

void check_pointers(Runtime& r, const Call& call, const Algo& algo) {
    const Problem& p = call.p;
    uint32_t e = p.desc.epilogue;
    const char* names[] = {"A", "B", "C", "D"};
    uint64_t pointers[] = {call.a, call.b, call.beta != 0 ? call.c : call.d, call.d};
    for (int i = 0; i < 4; i++) {
        if (!r.owner(pointers[i])) invalid(std::string(names[i]) + " is not on a device");
        if (i == 2 && call.beta == 0) continue;
        if (pointers[i] % algo.align[i])
            invalid(std::string(names[i]) + " is not aligned to the " + std::to_string(algo.align[i]) +
                    " bytes that the heuristic was told (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_" + names[i] +
                    "_BYTES)");
    }
    if ((has(e, BIAS) || has(e, BGRAD) || e >= 256) &&
        (!p.desc.bias || p.desc.bias % bytes_of(p.bias_type())))
        invalid("CUBLASLT_MATMUL_DESC_BIAS_POINTER is null or misaligned");
    if ((e & AUX) && (!p.desc.aux || p.desc.aux % 16))
        invalid("CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER is null or not aligned to 16 bytes");
    if (call.c == call.d && call.beta != 0 && (p.c.ld != p.d.ld || p.c.batch_stride != p.d.batch_stride))
        invalid("C and D are one matrix with two layouts");
    if (algo.workspace && (!call.workspace || call.workspace % 16))
        invalid("the workspace is null or not aligned to 16 bytes");
}

void check_overlap(const Work& w) {
    for (const Range& x : w.touches)
        for (const Range& y : w.touches)
            if (&x != &y && x.write && x.address < y.address + y.bytes && y.address < x.address + x.bytes)
                invalid("what it writes overlaps what it reads or writes elsewhere");
}

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    return guarded("cublasLtCreate", [&](Runtime&) {
        if (!handle) invalid("a null handle");
        *handle = new cublasLtContext{Runtime::current_device()};
    });
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR: return "CUBLAS_STATUS_LICENSE_ERROR";
    }
    return "CUBLAS_STATUS_UNKNOWN";
}

const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
    return guarded("cublasLtMatmulAlgoGetHeuristic", [&](Runtime&) {
        if (!handle || !preference || wanted < 1 || !results || !found)
            invalid("a null argument, or no room for a result");
        *found = 0;
        Algo algo = choose(problem_of(desc, a, b, c, d), *inside<Preference>(preference));
        results[0] = {};
        *inside<Algo>(&results[0].algo) = algo;
        results[0].workspaceSize = algo.workspace;
        results[0].state = CUBLAS_STATUS_SUCCESS;
        results[0].wavesCount = 1;
        *found = 1;
    });
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                       cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
    return guarded("cublasLtMatmulAlgoCheck", [&](Runtime&) {
        const Algo& x = *inside<Algo>(algo);
        if (x.magic != ALGO_MAGIC || x.problem != problem_of(desc, a, b, c, d).hash())
            not_supported("the algorithm was found for another problem");
        *result = {};
        result->algo = *algo, result->workspaceSize = x.workspace, result->wavesCount = 1;
    });
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* A, cublasLtMatrixLayout_t a, const void* B,
                              cublasLtMatrixLayout_t b, const void* beta, const void* C,
                              cublasLtMatrixLayout_t c, void* D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    return guarded("cublasLtMatmul", [&](Runtime& r) {
        if (!handle || !alpha || !beta) invalid("a null handle, alpha or beta");
        CUstream_st* s = r.stream(stream);
        if (handle->device != s->device)
            invalid("the handle was created for another device than the stream's");
        auto call = std::make_shared<Call>();
        call->p = problem_of(desc, a, b, c, d);
        call->alpha = *static_cast<const float*>(alpha), call->beta = *static_cast<const float*>(beta);
        call->a = at(A), call->b = at(B), call->c = at(C), call->d = at(D);
        call->workspace = at(workspace), call->workspace_bytes = 0, call->threads = r.workers();
        Algo x{ALGO_MAGIC, {1, 1, 1, 1}, 0, 0};
        if (algo) {
            x = *inside<Algo>(algo);
            if (x.magic != ALGO_MAGIC || x.problem != call->p.hash())
                invalid("the algorithm was found for another problem (shapes, types, leading dimensions, "
                        "epilogue)");
            if (workspace_bytes < x.workspace)
                invalid("the algorithm needs a workspace of " + std::to_string(x.workspace) +
                        " bytes, this one has " + std::to_string(workspace_bytes));
        } else {
            Type types[] = {call->p.ta, call->p.tb, call->p.tc, call->p.td};
            for (int i = 0; i < 4; i++) x.align[i] = uint32_t(bytes_of(types[i]));
            x.workspace = std::min<uint64_t>(workspace_bytes, WORKSPACE);
        }
        call->workspace_bytes = x.workspace;
        check_pointers(r, *call, x);
        Work w = work_of(call);
        check_overlap(w);
        r.enqueue(s, std::move(w));
    });
}

} // extern "C"
