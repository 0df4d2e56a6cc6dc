// Drives the spec of every op: finite differences, precision, repeatability, threads, strides, capacities,
// frozen inputs, fused against unfused. `op_tests --gtest_filter=*rmsnorm*` runs one op.
//
// `--device cuda` drives the CUDA kernels of every op instead: against f64 on the CPU, twice, as a graph,
// poisoned and not, and through the same variations. bin/vgpu/op_tests does it on the virtual GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/base/cli.h"
#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/plan/program.h"
#include "engine/tape/passes.h"
#include "kernels/spec.h"

using namespace nvl;

namespace {

using Values = std::vector<double>;

Values values(const View& v, int64_t rows_wanted = -1) {
    Values r;
    auto read = [&]<class X>() {
        int64_t rows = rows_wanted < 0 ? v.rows() : rows_wanted;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t c = 0; c < v.cols(); c++) r.push_back(double(v.row<X>(i)[c]));
    };
    if (v.dtype == Dtype::i32)
        read.operator()<int32_t>();
    else
        dispatch(v.dtype, [&]<class X> { read.template operator()<X>(); });
    return r;
}

double norm(const Values& a) {
    double s = 0;
    for (double x : a) s += x * x;
    return std::sqrt(s);
}
double distance(const Values& a, const Values& b) { // relative to the norm of b
    EXPECT_EQ(a.size(), b.size());
    double s = 0;
    for (size_t i = 0; i < std::min(a.size(), b.size()); i++) s += (a[i] - b[i]) * (a[i] - b[i]);
    double n = norm(b);
    return std::sqrt(s) / (n > 1e-12 ? n : 1);
}

// One case of an op, recorded with random cotangents on its outputs, so that every gradient means something.
class Bench {
public:
    Bench(const Op& op, const std::string& text, Case::Options options, Device device = Device::cpu,
          bool reference = false)
        : store_(device), c(store_, text, options), recording_(tape_) {
        outputs = (reference ? op.reference : op.build)(c);
        if (!op.gradients) tape_.no_grad();
        for (size_t k = 0; k < outputs.size(); k++) {
            tape_.keep(outputs[k]);
            if (!op.gradients || !is_float(outputs[k].dtype()) || !outputs[k].buffer->needs_grad) continue;
            Shape s = outputs[k].shape();
            Tensor dy = tape_.input("cotangent", s, outputs[k].dtype());
            tape_.seed(outputs[k], dy);
            cotangents_.push_back({k, dy});
        }
        if (op.gradients) tape_.backward(gradients_of());
        program = std::make_unique<Program>(tape_, 1, device);
        for (auto& [k, dy] : cotangents_) fill(program->host_view(dy), k);
    }
    void run(bool first = true) {
        Run r{.first = first, .counts = c.counts, .poison = true, .measured = &measured};
        program->run(r);
    }
    void run_unwatched() { program->run({.counts = c.counts}); }
    Values output(size_t k) {
        View v = program->host_view(outputs[k]);
        return values(v, true_rows(outputs[k], v));
    }
    Values gradient(size_t k) {
        Tensor g = gradient_of(c.differentiable[k]);
        View v = program->host_view(g);
        return values(v, true_rows(c.differentiable[k], v));
    }
    bool has_gradient(size_t k) { return c.differentiable[k].buffer->needs_grad; }
    // <outputs, cotangents>, the scalar that finite differences look at
    double scalar() {
        double s = 0;
        for (auto& [k, dy] : cotangents_) {
            View v = program->host_view(dy);
            Values y = output(k), d = values(v, true_rows(dy, v));
            for (size_t i = 0; i < y.size(); i++) s += y[i] * d[i];
        }
        return s;
    }

private:
    Store store_; // in front of the case, which takes from it
public:
    Case c;
    std::vector<Tensor> outputs;
    std::unique_ptr<Program> program;
    Cost measured;

private:
    std::vector<Tensor> gradients_of() {
        std::vector<Tensor> r;
        for (Tensor& x : c.differentiable)
            if (x.buffer->needs_grad) r.push_back(x);
        return r;
    }
    int64_t true_rows(const Tensor& t, const View& v) {
        int64_t rows = v.rows();
        for (int d = 0; d + 1 < t.shape().rank || (t.shape().rank == 1 && d < 1); d++)
            if (size_t s = t.shape()[d].symbol) rows = rows * c.counts[s - 1] / program->capacities()[s - 1];
        if (t.shape().rank == 1 && t.shape()[0].symbol) return 1;
        return rows;
    }
    static void fill(const View& v, uint64_t key) {
        Random random(key, "cotangent");
        dispatch(v.dtype, [&]<class X> {
            for (int64_t i = 0; i < v.rows(); i++)
                for (int64_t k = 0; k < v.cols(); k++)
                    v.row<X>(i)[k] = X(float(bf16(float(random.normal(uint64_t(i * v.cols() + k))))));
        });
    }
    Tape tape_;
    Recording recording_;
    std::vector<std::pair<size_t, Tensor>> cotangents_;
};

void expect_same_bits(Bench& a, Bench& b, const char* what, int except = -1) {
    for (size_t k = 0; k < a.outputs.size(); k++)
        EXPECT_EQ(a.output(k), b.output(k)) << what << ": output " << k;
    for (size_t k = 0; k < a.c.differentiable.size(); k++)
        if (int(k) != except && a.has_gradient(k) && b.has_gradient(k)) {
            EXPECT_EQ(a.gradient(k), b.gradient(k)) << what << ": gradient " << k;
        }
}

void check_finite_differences(Bench& b) {
    b.run();
    std::vector<Values> gradients; // all of them now: the runs below rewrite the buffers at perturbed points
    for (size_t k = 0; k < b.c.differentiable.size(); k++) gradients.push_back(b.gradient(k));
    for (size_t k = 0; k < b.c.differentiable.size(); k++) {
        Tensor x = b.c.differentiable[k];
        View v = view_of(x, x.buffer->data);
        const Values& g = gradients[k];
        double scale = std::max(norm(g) / std::sqrt(double(g.size())), 1e-3);
        for (uint64_t sample = 0; sample < 24; sample++) {
            int64_t at = int64_t(Random(k, "sample").below(sample, g.size()));
            double* p = v.row<double>(at / v.cols()) + at % v.cols();
            double before = *p, h = 1e-5 * std::max(1.0, std::abs(before)), side[2];
            for (int s = 0; s < 2; s++) {
                *p = before + (s ? h : -h);
                b.run();
                side[s] = b.scalar();
            }
            *p = before;
            double expected = (side[1] - side[0]) / (2 * h);
            EXPECT_NEAR(g[size_t(at)], expected, 2e-6 * scale + 1e-6 * std::abs(expected))
                << "input " << k << " element " << at;
            if (testing::Test::HasFailure()) return;
        }
    }
}

void compare(Bench& a, Bench& exact, double tolerance, const char* what) {
    for (size_t k = 0; k < a.outputs.size(); k++)
        EXPECT_LE(distance(a.output(k), exact.output(k)), tolerance) << what << ": output " << k;
    for (size_t k = 0; k < a.c.differentiable.size(); k++) {
        if (!a.has_gradient(k)) continue;
        EXPECT_LE(distance(a.gradient(k), exact.gradient(k)), tolerance) << what << ": gradient " << k;
    }
}

// A second micro-batch adds: the same one twice gives exactly twice the gradient.
void check_accumulation(const Op& op, const std::string& text, Dtype dtype, Device device) {
    Bench once(op, text, {.dtype = dtype}, device), twice(op, text, {.dtype = dtype}, device);
    once.run(), twice.run(), twice.run(false);
    for (size_t k = 0; k < once.c.differentiable.size(); k++) {
        Values a = once.gradient(k), b = twice.gradient(k);
        for (double& x : a) x *= 2;
        if (op.exact_accumulation)
            EXPECT_EQ(a, b) << "accumulated gradient " << k;
        else
            EXPECT_LE(distance(b, a), op.f32_tolerance) << "accumulated gradient " << k;
    }
}

// Equal bits for any number of threads.
void check_threads(const Op& op, const std::string& text, Dtype dtype, Bench& plain) {
    int before = threads();
    for (int n : {1, 3}) {
        set_threads(n);
        Bench again(op, text, {.dtype = dtype});
        again.run();
        expect_same_bits(plain, again, n == 1 ? "one thread" : "three threads");
    }
    set_threads(before);
}

// Equal bits in memory that nobody has written before, and from the graph that the second run captures.
void check_launches(const Op& op, const std::string& text, Dtype dtype, Device device, Bench& plain) {
    Bench again(op, text, {.dtype = dtype}, device);
    for (const char* what : {"fresh memory", "replayed graph"}) {
        again.run_unwatched();
        expect_same_bits(plain, again, what);
    }
    bool can_capture = true;
    for (const Step& s : again.program->steps()) can_capture &= !s.traits.on_host;
    EXPECT_EQ(again.program->replayed, can_capture);
}

void check_dtype(const Op& op, const std::string& text, Dtype dtype, Device device, Bench& exact) {
    Bench plain(op, text, {.dtype = dtype}, device);
    plain.run();
    Cost planned = plain.program->cost(), ran = plain.measured;
    EXPECT_EQ(plain.program->held_bytes(), plain.program->planned_bytes());
    EXPECT_EQ(planned, ran) << "bytes and FLOPs that ran differ from the plan";
    compare(plain, exact, dtype == Dtype::f32 ? op.f32_tolerance : op.bf16_tolerance, name_of(dtype));

    if (device == Device::cpu)
        check_threads(op, text, dtype, plain);
    else
        check_launches(op, text, dtype, device, plain);
    Bench strided(op, text, {.dtype = dtype, .strided = true}, device);
    strided.run();
    expect_same_bits(plain, strided, "strided inputs");
    if (!plain.c.counts.empty()) {
        Bench roomy(op, text, {.dtype = dtype, .extra_rows = 5}, device);
        roomy.run();
        expect_same_bits(plain, roomy, "larger capacity");
    }
    if (!op.gradients) return;
    check_accumulation(op, text, dtype, device);
    for (int k = 0; k < int(plain.c.differentiable.size()); k++) {
        Bench frozen(op, text, {.dtype = dtype, .frozen = k}, device);
        frozen.run();
        expect_same_bits(plain, frozen, "frozen input", k);
    }
}

Device chosen_device = Device::cpu;

class OpCase : public testing::TestWithParam<std::pair<const Op*, std::string>> {};

TEST_P(OpCase, HoldsItsPromises) {
    auto [op, text] = GetParam();
    Bench exact(*op, text, {.dtype = Dtype::f64});
    exact.run();
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) check_dtype(*op, text, dtype, chosen_device, exact);
    if (chosen_device != Device::cpu) return;
    if (op->reference) {
        Bench composed(*op, text, {.dtype = Dtype::f64}, Device::cpu, true);
        composed.run();
        compare(exact, composed, 1e-10, "fused against unfused");
    }
    if (op->gradients) check_finite_differences(exact);
}

std::vector<std::pair<const Op*, std::string>> test_cases() {
    std::vector<std::pair<const Op*, std::string>> r;
    for (const Op& op : all_ops())
        for (const std::string& text : op.cases)
            if (text.rfind("bench ", 0) != 0) r.push_back({&op, text});
    return r;
}

} // namespace

INSTANTIATE_TEST_SUITE_P(Ops, OpCase, testing::ValuesIn(test_cases()), [](const auto& info) {
    std::string name = info.param.first->name + "__" + info.param.second;
    for (char& ch : name)
        if (!std::isalnum(static_cast<unsigned char>(ch))) ch = '_';
    return name;
});

int main(int argc, char** argv) {
    // The device of the programs that have one, unless the command line says otherwise.
    std::string device = is_linked(Device::cuda) ? "cuda" : "cpu";
    for (int i = 1; i + 1 < argc; i++)
        if (std::string(argv[i]) == "--device") {
            device = argv[i + 1];
            std::copy(argv + i + 2, argv + argc + 1, argv + i), argc -= 2;
            break;
        }
    return run_main("op_tests", [&] {
        chosen_device = device_from(device);
        testing::InitGoogleTest(&argc, argv);
        return RUN_ALL_TESTS();
    });
}
