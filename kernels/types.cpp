#include "kernels/types.h"

namespace nvl {

namespace {
struct Found {
    const Tensor *partial = nullptr, *invariant = nullptr, *other = nullptr;
    Type varying = Invariant;
};

Found classify(const char* op, Rule rule, size_t axis, std::initializer_list<Tensor> inputs) {
    Found f;
    for (const Tensor& x : inputs) {
        Type t = x.type[axis];
        if (t.kind == Kind::P) {
            check(rule != Rule::nonlinear,
                  "%s: %s is Partial on axis %s, a sum over ranks must be finished before a nonlinear op; "
                  "reduce it first",
                  op, x.name(), axis_names[axis]);
            check(rule != Rule::product || !f.partial, "%s: %s and %s are both Partial on axis %s", op,
                  f.partial->name(), x.name(), axis_names[axis]);
            f.partial = &x;
        } else if (t.kind == Kind::I)
            f.invariant = &x;
        else {
            check(f.varying.kind != Kind::V || t.kind != Kind::V || f.varying.dim == t.dim,
                  "%s: %s is %s on axis %s, another input is %s", op, x.name(), t.text().c_str(),
                  axis_names[axis], f.varying.text().c_str());
            f.other = &x;
            if (t.kind == Kind::V || f.varying.kind == Kind::I) f.varying = t;
        }
    }
    return f;
}
} // namespace

Types join(const char* op, Rule rule, std::initializer_list<Tensor> inputs) {
    Types result{};
    for (size_t axis = 0; axis < AXES; axis++) {
        if (tape().size(Axis(axis)) == 1) continue;
        Found f = classify(op, rule, axis, inputs);
        if (const Tensor* i = f.invariant; i && (f.other || f.partial)) {
            const Tensor* o = f.other ? f.other : f.partial;
            fail("%s: %s is Invariant on axis %s and %s is %s; its gradient would miss the other ranks' "
                 "part, wrap it in "
                 "copy_to(%s, %s)",
                 op, i->name(), axis_names[axis], o->name(), o->type[axis].text().c_str(), i->name(),
                 axis_names[axis]);
        }
        result[axis] = f.varying;
        if (!f.partial) continue;
        if (rule == Rule::sum)
            for (const Tensor& x : inputs)
                check(x.type[axis].kind == Kind::P,
                      "%s: %s is %s and %s is Partial on axis %s: it would be counted once per rank; reduce "
                      "%s first",
                      op, x.name(), x.type[axis].text().c_str(), f.partial->name(), axis_names[axis],
                      f.partial->name());
        check(f.varying.kind != Kind::V, "%s: %s varies and %s is Partial on axis %s", op, f.other->name(),
              f.partial->name(), axis_names[axis]);
        result[axis] = Partial;
    }
    return result;
}

Types join_linear(const Tensor& x, const Tensor& w) {
    Types result{};
    for (size_t axis = 0; axis < AXES; axis++) {
        if (tape().size(Axis(axis)) == 1) continue;
        Type tx = x.type[axis], tw = w.type[axis];
        int last = x.shape().rank - 1;
        if (tx == Shard(last) && last && tw == Shard(1))
            result[axis] = Partial;
        else if (tx.kind == Kind::R && tw == Shard(0))
            result[axis] = Shard(last);
        else if (tx.kind == Kind::V && tx.dim != last && tw.kind == Kind::R)
            result[axis] = tx;
        else if (tx.kind == tw.kind && (tx.kind == Kind::I || tx.kind == Kind::R))
            result[axis] = tx;
        else if (tx.kind == Kind::P && tw.kind == Kind::R)
            result[axis] = Partial;
        else {
            const Tensor* i = tw.kind == Kind::I ? &w : tx.kind == Kind::I ? &x : nullptr;
            std::string hint = i ? std::string("wrap the Invariant one in copy_to(") + i->name() + ", " +
                                       axis_names[axis] + ")"
                                 : "no rule multiplies these";
            fail("linear: on axis %s %s is %s and %s is %s; %s", axis_names[axis], x.name(),
                 tx.text().c_str(), w.name(), tw.text().c_str(), hint.c_str());
        }
    }
    return result;
}

Types summed(Types type) {
    for (Type& t : type)
        if (t.kind == Kind::V) t = Partial;
    return type;
}

void expect_same_shape(const char* op, const Tensor& a, const Tensor& b) {
    check(a.shape() == b.shape(), "%s: %s is %s and %s is %s; expected the same shape", op, a.name(),
          a.shape().text().c_str(), b.name(), b.shape().text().c_str());
}

} // namespace nvl
