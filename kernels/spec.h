// The spec of an op: how to build a case of it, and which cases to try. Tests, benchmarks and the reference
// page are derived from specs by shared drivers (tests/ops.cpp, bench/ops.cpp); adding an op edits nothing
// else.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/tape/tape.h"

namespace nvl {

/// One case of an op, e.g. "T=7 C=100 causal=1": hands out inputs that are a function of (name, index) alone,
/// so that the same case can be built again in another dtype, with strided inputs, or at a larger capacity.
class Case {
public:
    struct Options {
        Dtype dtype = Dtype::f32;
        bool strided = false;   // inputs are views into wider buffers, at unaligned offsets
        int64_t extra_rows = 0; // capacity beyond the true number of rows
        int frozen = -1;        // index of an input that takes no gradient
    };
    Case(Store& store, const std::string& text, Options options);

    /// An integer of the case's text; an error if it is not there.
    int64_t operator[](const char* key) const;
    int64_t get(const char* key, int64_t fallback) const;
    std::string text(const char* key, const char* fallback) const;
    Dtype dtype() const { return options_.dtype; }

    /// A capacity dimension whose true extent is the case's value of `key`.
    Dim rows(const char* key);
    /// A differentiable activation, normal(0, scale), values representable in bf16.
    Tensor input(Shape shape, double scale = 1, const char* name = "x");
    /// A differentiable parameter, normal(mean, scale): its gradient is f32 (f64 of f64).
    Tensor weight(Shape shape, double scale = 1, double mean = 0, const char* name = "w");
    /// Data that takes no gradient: floating point, or integers by a function of the index.
    Tensor constant(Shape shape, double scale = 1);
    Tensor integers(Shape shape, const std::function<int32_t(int64_t)>& value);

    std::vector<Tensor> differentiable; // what input() and weight() handed out, in order
    std::vector<int64_t> counts;        // true extents of the capacities, for Run
private:
    Tensor make(Shape shape, double scale, double mean, const char* name, bool parameter);
    Store& store_;
    std::map<std::string, std::string> values_;
    Options options_;
    uint64_t handed_out_ = 0;
};

struct Op {
    std::string name;
    /// Records the op and returns the outputs whose values and gradients are checked.
    std::function<std::vector<Tensor>(Case&)> build;
    /// A fused op names its unfused composition: same inputs, same outputs.
    std::function<std::vector<Tensor>(Case&)> reference = nullptr;
    /// Sizes to test; those that start with "bench " are timed instead.
    std::vector<std::string> cases;
    double f32_tolerance = 2e-6, bf16_tolerance = 2e-2; // relative to the norm of the f64 result
    bool exact_accumulation = true; // false: a gradient is added in pieces, so twice is 2x up to rounding
    bool gradients = true;          // false: forward only (sampling, optimisers, caches)
};

const std::vector<Op>& all_ops();
struct RegisterOp {
    explicit RegisterOp(Op op);
};

} // namespace nvl
