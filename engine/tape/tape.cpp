// Recording: arguments, versions, eager execution, recompute.
#include "engine/tape/tape.h"

#include <algorithm>
#include <cstring>

namespace nvl {

Tape& Tape::current() {
    if (!Recording::active) fail("no tape is recording on this thread");
    return *Recording::active;
}

View view_of(const Tensor& t, std::byte* data) {
    if (!t) return {};
    View v{data + t.layout.offset * size_of(t.dtype()),
           t.dtype(),
           false,
           t.layout.shape.rank,
           {},
           t.layout.stride};
    for (size_t i = 0; i < size_t(v.rank); i++) v.shape[i] = t.layout.shape.dims[i].size;
    return v;
}
double bytes_of(const View* views, const std::vector<Argument>& args) {
    double bytes = 0;
    for (size_t i = 0; i < args.size(); i++) {
        bool add = args[i].use == Use::inout || (args[i].use == Use::acc && views[i].add);
        bytes += double(views[i].bytes()) * (add ? 2 : 1);
    }
    return bytes;
}

Dim Tape::capacity(int64_t n) {
    check(capacity_.size() < 255, "a program has at most 255 capacity dimensions");
    capacity_.push_back(n);
    return {n, uint8_t(capacity_.size())};
}
Tensor Tape::tensor(const char* name, Shape shape, Dtype dtype, Types type) {
    Buffer& b = buffers_.emplace_back();
    b.name = name, b.dtype = b.grad_dtype = dtype, b.shape = shape, b.tape = this,
    b.id = int(buffers_.size()) - 1;
    if (eager_) { // NaN: reading before writing shows
        eager_memory_.emplace_back(size_t(b.bytes()) + 1);
        b.data = eager_memory_.back().data();
        std::memset(b.data, 0xff, size_t(b.bytes()));
    }
    return {&b, Layout::contiguous(shape), type};
}
Tensor Tape::input(const char* name, Shape shape, Dtype dtype, Types type) {
    Tensor x = tensor(name, shape, dtype, type);
    x.buffer->input = true;
    return x;
}
Tensor Tape::alias(Tensor x) {
    Buffer* storage = x.buffer->storage ? x.buffer->storage : x.buffer;
    Buffer* b = clone(x.buffer);
    b->storage = storage, b->tape = this, b->gradient = nullptr, b->input = b->keep = false;
    x.buffer = b;
    return x;
}
Buffer* Tape::clone(Buffer* b) {
    Buffer& c = buffers_.emplace_back(*b);
    c.id = int(buffers_.size()) - 1;
    return &c;
}

// Gradients are resolved here, in parameter order, so that the order in which C++ evaluates the arguments of
// run(...) does not matter. A contribution goes through a temporary where the same tensor is differentiated
// twice by one kernel (mul(x, x): kernels may write their gradients in any order) or where the types differ.
std::vector<Tape::Repeated> Tape::resolve_gradients(Step& s) {
    std::vector<Repeated> repeated;
    std::vector<Tensor> targets;
    for (Argument& a : s.args) {
        if (a.use != Use::acc) continue;
        Tensor x = a.tensor;
        a.tensor = {};
        if (!x || !x.buffer->needs_grad || !is_float(x.dtype())) continue;
        bool twice = false;
        for (const Tensor& t : targets)
            twice |= t.buffer == x.buffer && relation(t.layout, x.layout) != Relation::disjoint;
        Dtype given = a.sum ? sum_dtype(x.dtype()) : x.dtype(); // what the kernel writes
        if (twice || (given != x.buffer->grad_dtype && !s.traits.any_dtype)) {
            a.tensor = tensor("temporary", x.shape(), given);
            repeated.push_back({x, a.tensor});
        } else
            a = contribution(x);
        targets.push_back(x);
    }
    return repeated;
}

// Every rule about arguments is checked here, once, for all ops.
void Tape::check_arguments(const Step& s) const {
    for (const Argument& a : s.args) {
        if (!a.tensor) {
            check(a.use == Use::acc, "%s: an argument is an empty tensor", s.kernel);
            continue;
        }
        Buffer* b = a.tensor.buffer;
        const char* name = b->name.c_str();
        check(!eager_ || b->tape || b->device == Device::cpu,
              "%s: %s lives on %s; eager tapes run on the cpu", s.kernel, name, name_of(b->device));
        check(!b->tape || b->tape == this, "%s: %s belongs to another tape", s.kernel, name);
        check(a.tensor.layout.dense_rows() || s.traits.any_stride,
              "%s: %s %s is not dense in its last dimension; call contiguous() first", s.kernel, name,
              a.tensor.shape().text().c_str());
        auto version = versions_.find(b);
        check(a.use == Use::acc || a.tensor.version == (version == versions_.end() ? 0 : version->second),
              "%s: %s was overwritten in place after this handle was taken; use the handle that the in-place "
              "op returned",
              s.kernel, name);
        if (!writes(a.use)) continue;
        for (const Argument& o : s.args)
            check(&o == &a || o.tensor.buffer != b ||
                      relation(o.tensor.layout, a.tensor.layout) == Relation::disjoint,
                  "%s: %s is written and also passed as another argument", s.kernel, name);
    }
}

void Tape::record(Step s) {
    std::vector<Repeated> repeated = resolve_gradients(s);
    bool any = s.traits.effect, wants_grad = false;
    for (Argument& a : s.args) { // steps know memory only: an alias gives way to its storage
        if (!a.tensor) continue;
        if (a.use == Use::in || a.use == Use::inout) wants_grad |= a.tensor.buffer->needs_grad;
        if (a.tensor.buffer->storage) a.tensor.buffer = a.tensor.buffer->storage;
        any |= writes(a.use);
    }
    check_arguments(s);
    if (!any) return; // nobody wants what this step computes: all its gradients are empty
    for (const Argument& a : s.args) {
        if (!a.tensor) continue;
        Buffer* b = a.tensor.buffer;
        if (a.use == Use::out && is_float(b->dtype) && b->tape) b->needs_grad |= wants_grad;
        if (a.use == Use::inout || (a.use == Use::out && !b->tape)) versions_[b]++;
    }
    if (eager_) {
        std::vector<View> v;
        for (Argument& a : s.args) {
            v.push_back(a.tensor ? view_of(a.tensor, a.tensor.buffer->data) : View{});
            v.back().add = a.add == Add::yes;
        }
        s.call(v.data(), Call::cpu);
    }
    steps.push_back(std::move(s));
    for (auto& [x, t] : repeated) run(accumulate, into(x), t);
}

std::vector<Tensor> Tape::checkpoint_region(std::function<std::vector<Tensor>()> region) {
    uint64_t sites = sites_;
    bool wanted = std::exchange(gradients_wanted_, false);
    std::vector<Tensor> outputs = region();
    gradients_wanted_ = wanted;
    if (!wanted) return outputs;
    on_backward(outputs, [this, outputs, region, sites] {
        size_t mark = closures_.size();
        uint64_t now = std::exchange(sites_, sites);
        phase_ = Phase::recompute;
        std::vector<Tensor> again = region();
        phase_ = Phase::backward, sites_ = now;
        for (size_t i = 0; i < outputs.size(); i++) {
            if (!outputs[i] || !has_grad(outputs[i])) continue;
            grad(outputs[i]);
            gradients_[again[i].buffer] = gradients_.at(outputs[i].buffer);
        }
        unwind(mark);
    });
    return outputs;
}

} // namespace nvl
