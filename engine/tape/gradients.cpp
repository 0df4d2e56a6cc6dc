// Autograd: one gradient buffer per buffer, first contributions write, later ones add, missing regions are
// zeroed.
#include <algorithm>
#include <cstring>

#include "engine/base/parallel.h"
#include "engine/tape/tape.h"

namespace nvl {

static void zero_cpu(Acc d) {
    if (d.add) return; // a later micro-batch: the gradient is already there
    int64_t bytes = d.cols() * size_of(d.dtype);
    parallel_for(d.rows(), std::max<int64_t>(1, 65536 / std::max<int64_t>(1, bytes)),
                 [&](int64_t begin, int64_t end) {
                     auto zero_row = [&]<class X>(X*) {
                         for (int64_t i = begin; i < end; i++)
                             std::memset(static_cast<void*>(d.row<X>(i)), 0, size_t(bytes));
                     };
                     if (d.dtype == Dtype::i32)
                         zero_row(static_cast<int32_t*>(nullptr));
                     else
                         dispatch(d.dtype, [&]<class X> { zero_row(static_cast<X*>(nullptr)); });
                 });
}

static void accumulate_cpu(Acc d, In s) {
    int64_t cols = d.cols();
    dispatch(d.dtype, [&]<class D> {
        dispatch(s.dtype, [&]<class S> {
            parallel_for(d.rows(), std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols)),
                         [&](int64_t begin, int64_t end) {
                             for (int64_t i = begin; i < end; i++) {
                                 D* to = d.row<D>(i);
                                 const S* from = s.row<S>(i);
                                 if (d.add)
                                     for (int64_t c = 0; c < cols; c++)
                                         to[c] = D(sum_t<D>(to[c]) + sum_t<D>(from[c]));
                                 else
                                     for (int64_t c = 0; c < cols; c++) to[c] = D(sum_t<D>(from[c]));
                             }
                         });
        });
    });
}

// Nothing to do in a later micro-batch.
static double zero_bytes(Acc d) { return d.add ? 0.0 : double(d.bytes()); }

constinit Kernel<void(Acc d)> zero{"zero", zero_cpu, nullptr, {}, zero_bytes};
constinit Kernel<void(Acc d, In s)> accumulate{"accumulate", accumulate_cpu, nullptr, {.any_dtype = true}};

static void fill_cpu(Acc d, double v) {
    dispatch(d.dtype, [&]<class X> {
        for (int64_t i = 0; i < d.rows(); i++)
            for (int64_t c = 0; c < d.cols(); c++) d.put(d.row<X>(i)[c], sum_t<X>(v));
    });
}
constinit Kernel<void(Acc, double)> fill_with{"fill", fill_cpu, nullptr, {.any_dtype = true}};

// The gradient of a Replicated value is Partial and the other way round.
static Type dual(Type t) {
    if (t.kind == Kind::R)
        t.kind = Kind::P;
    else if (t.kind == Kind::P)
        t.kind = Kind::R;
    return t;
}

Tape::Gradient& Tape::gradient(const Tensor& x) {
    auto [it, fresh] = gradients_.try_emplace(x.buffer);
    Gradient& g = it->second;
    if (!fresh) return g;
    g.first_step = steps.size();
    if (x.buffer->gradient)
        g.base = {x.buffer->gradient, Layout::contiguous(x.buffer->shape)};
    else
        g.base = tensor(("d " + x.buffer->name).c_str(), x.buffer->shape, x.buffer->grad_dtype);
    for (size_t a = 0; a < AXES; a++) g.base.type[a] = dual(x.type[a]);
    return g;
}

// Parts of the base that no view contributes to must read as zero, so a zero step goes before the first
// contribution. Writes that were recorded meanwhile stay writes: they are disjoint and now land on zeros.
void Tape::require_zero(Gradient& g) {
    if (g.zero_first || g.complete) return;
    g.zero_first = true;
    Step s{zero.name, module_path(), Phase::backward, segment_, {}, {}, {}};
    s.args.push_back({Use::acc, g.base, g.base.buffer->tape ? Add::no : Add::after_first});
    s.call = caller(zero, std::tuple<std::monostate>{});
    if (eager_) {
        View v = view_of(g.base, g.base.buffer->data);
        s.call(&v, Call::cpu);
    }
    size_t at = g.first_step;
    if (at < steps.size()) s.path = steps[at].path, s.segment = steps[at].segment;
    steps.insert(steps.begin() + long(at), std::move(s));
    for (auto& [b, other] : gradients_)
        if (other.first_step >= at) other.first_step++;
}

Argument Tape::contribution(const Tensor& x) {
    Gradient& g = gradient(x);
    check(!g.read || !g.base.buffer->tape, "a contribution to the gradient of %s comes after it was read",
          x.name());
    Tensor d = g.base;
    d.layout = x.layout;
    if (g.complete || g.zero_first) return {Use::acc, d, Add::yes};
    bool inside = false, disjoint = true;
    for (const Layout& w : g.written) {
        Relation r = relation(x.layout, w);
        inside |= r == Relation::inside, disjoint &= r == Relation::disjoint;
    }
    if (inside) return {Use::acc, d, Add::yes};
    if (!disjoint || (eager_ && x.shape().numel() != x.buffer->shape.numel())) {
        require_zero(g);
        return {Use::acc, d, Add::yes};
    }
    g.written.push_back(x.layout);
    g.elements += x.shape().numel();
    g.complete = g.elements == x.buffer->shape.numel();
    return {Use::acc, d, g.base.buffer->tape ? Add::no : Add::after_first};
}

Tensor Tape::grad(const Tensor& y) {
    Gradient& g = gradient(y);
    require_zero(g); // no step if every element has a contribution
    g.read = true;
    Tensor d = g.base;
    d.layout = y.layout;
    return d;
}

void Tape::seed(const Tensor& y, const Tensor& dy) {
    Phase before = std::exchange(phase_, Phase::backward);
    if (dy)
        run(accumulate, into(y), dy);
    else
        run(fill_with, into(y), 1.0);
    phase_ = before;
}

void Tape::unwind(size_t mark) {
    while (closures_.size() > mark) {
        Closure c = std::move(closures_.back());
        closures_.pop_back();
        bool used = false; // an output nobody used has no gradient: its op has no backward
        for (const Tensor& y : c.outputs) used |= has_grad(y);
        if (!used) continue;
        std::string here = std::exchange(module_path(), c.path);
        c.record();
        module_path() = here;
    }
}

void Tape::backward(const std::vector<Tensor>& parameters) {
    phase_ = Phase::backward;
    unwind(0);
    for (const Tensor& w : parameters)
        if (w.buffer->needs_grad) gradient(w);
    std::vector<Gradient*> persistent;
    for (auto& [b, g] : gradients_)
        if (!g.base.buffer->tape) persistent.push_back(&g);
    std::sort(persistent.begin(), persistent.end(),
              [](auto* a, auto* b) { return a->base.buffer->name < b->base.buffer->name; });
    for (Gradient* g : persistent)
        require_zero(*g); // a parameter without a gradient gets zeros, never stale values
    phase_ = Phase::forward;
}

} // namespace nvl
