#include "kernels/optim/adamw.h"

#include <cmath>
#include <cstring>

#include "engine/base/parallel.h"
#include "kernels/spec.h"

namespace nvl {

// The numbers of a step as the loop wants them, computed in f64.
template <class A> struct Factors {
    A clip, keep, toward_g, beta2, toward_gg, size, inverse_root, eps;
    Factors(const OptimStep& s, double clip_scale)
        : clip(A(clip_scale)), keep(A(1 - s.lr * s.weight_decay)), toward_g(A(1 - s.beta1)),
          beta2(A(s.beta2)), toward_gg(A(1 - s.beta2)), size(A(s.lr / (1 - std::pow(s.beta1, s.step)))),
          inverse_root(A(1 / std::sqrt(1 - std::pow(s.beta2, s.step)))), eps(A(s.eps)) {}
};

struct None {};

// One pass over elements [0, n). R: the rounded copy's type or None; M: whether max_v is kept.
template <class A, class R, bool M>
static void update(A* __restrict w, R* __restrict rounded, A* __restrict m, A* __restrict v,
                   A* __restrict max_v, const A* __restrict g, int64_t n, const Factors<A>& factors) {
    const Factors<A> f = factors;
    for (int64_t i = 0; i < n; i++) {
        A d = g[i] * f.clip, mi = std::fma(f.toward_g, d - m[i], m[i]);
        A vi = std::fma(f.toward_gg, d * d, f.beta2 * v[i]), under = vi;
        m[i] = mi, v[i] = vi;
        if constexpr (M) max_v[i] = under = vi > max_v[i] ? vi : max_v[i];
        A wi = std::fma(-f.size, mi / std::fma(std::sqrt(under), f.inverse_root, f.eps), w[i] * f.keep);
        w[i] = wi;
        if constexpr (!std::is_same_v<R, None>) rounded[i] = R(wi);
    }
}

template <class F> static void in_blocks(int64_t n, F body) {
    parallel_for((n + 4095) / 4096, 4, [&](int64_t begin, int64_t end) {
        body(begin * 4096, std::min(n, end * 4096) - begin * 4096);
    });
}

template <class A, class R> static void update_all(const View& w, R* rounded, const View& m, const View& v,
                                                   const View& max_v, const View& g, const OptimStep& s,
                                                   double clip) {
    int64_t n = dense_count("adamw", w);
    for (const View* x : {&m, &v, &g})
        check(dense_count("adamw", *x) == n, "adamw: %ld elements for a parameter of %ld", x->numel(), n);
    A *pw = w.as<A>(), *pm = m.as<A>(), *pv = v.as<A>(), *px = max_v ? max_v.as<A>() : nullptr;
    const A* pg = g.as<A>();
    Factors<A> f(s, clip);
    in_blocks(n, [&](int64_t at, int64_t count) {
        R* r = rounded;
        if constexpr (!std::is_same_v<R, None>) r += at;
        if (px)
            update<A, R, true>(pw + at, r, pm + at, pv + at, px + at, pg + at, count, f);
        else
            update<A, R, false>(pw + at, r, pm + at, pv + at, nullptr, pg + at, count, f);
    });
}

static void run(const View& w, const View& m, const View& v, const View& max_v, const View& g,
                const View& step, const View& clip) {
    double scale = clip_of(clip);
    if (std::isnan(scale)) return;
    None* none = nullptr;
    if (w.dtype == Dtype::f64)
        update_all<double>(w, none, m, v, max_v, g, step_of(step), scale);
    else
        update_all<float>(w, none, m, v, max_v, g, step_of(step), scale);
}
static void run_master(const View& master, const View& w, const View& m, const View& v, const View& max_v,
                       const View& g, const View& step, const View& clip) {
    double scale = clip_of(clip);
    check(dense_count("adamw", w) == master.numel(), "adamw: the master has another size");
    bf16* rounded = w.as<bf16>();
    if (!std::isnan(scale)) return update_all<float>(master, rounded, m, v, max_v, g, step_of(step), scale);
    const float* from = master.as<float>(); // no update: the copy is what it was
    in_blocks(master.numel(), [&](int64_t at, int64_t n) {
        for (int64_t i = at; i < at + n; i++) rounded[i] = bf16(from[i]);
    });
}

static void plain_cpu(InOut w, InOut m, InOut v, In g, In step, In clip) { run(w, m, v, {}, g, step, clip); }
static void amsgrad_cpu(InOut w, InOut m, InOut v, InOut max_v, In g, In step, In clip) {
    run(w, m, v, max_v, g, step, clip);
}
static void master_cpu(InOut master, Out w, InOut m, InOut v, In g, In step, In clip) {
    run_master(master, w, m, v, {}, g, step, clip);
}
static void master_amsgrad_cpu(InOut master, Out w, InOut m, InOut v, InOut max_v, In g, In step, In clip) {
    run_master(master, w, m, v, max_v, g, step, clip);
}

constinit Kernel<void(InOut, InOut, InOut, In, In, In)> adamw_plain{"adamw", plain_cpu};
constinit Kernel<void(InOut, InOut, InOut, InOut, In, In, In)> adamw_amsgrad{"adamw_amsgrad", amsgrad_cpu};
constinit Kernel<void(InOut, Out, InOut, InOut, In, In, In)> adamw_master{"adamw_master", master_cpu};
constinit Kernel<void(InOut, Out, InOut, InOut, InOut, In, In, In)> adamw_master_amsgrad{
    "adamw_master_amsgrad", master_amsgrad_cpu};

AdamWState adamw_state(Store& store, const Tensor& w, bool amsgrad) {
    Dtype type = sum_dtype(w.dtype());
    auto moment = [&](const char* name) {
        return store.tensor(std::string(w.name()) + name, w.shape(), type, w.type);
    };
    Tensor m = moment(".m"), v = moment(".v");
    return {m, v, amsgrad ? moment(".max_v") : Tensor{}, master_of(store, w)};
}

void adamw(Tensor w, const AdamWState& s, Tensor gradient, Tensor step, Tensor clip) {
    Tape& t = tape();
    check(gradient.shape() == w.shape() && s.m.shape() == w.shape(), "adamw: %s is %s, its gradient %s",
          w.name(), w.shape().text().c_str(), gradient.shape().text().c_str());
    if (s.master && s.max_v)
        t.run(adamw_master_amsgrad, s.master, w, s.m, s.v, s.max_v, gradient, step, clip);
    else if (s.master)
        t.run(adamw_master, s.master, w, s.m, s.v, gradient, step, clip);
    else if (s.max_v)
        t.run(adamw_amsgrad, w, s.m, s.v, s.max_v, gradient, step, clip);
    else
        t.run(adamw_plain, w, s.m, s.v, gradient, step, clip);
}

// The spec has f32 states and gradients whatever the case's type is: a bf16 parameter then has a master.
static void spec_fill(Out x, double scale, int64_t power) {
    auto fill = [&]<class X>() {
        for (int64_t i = 0; i < x.numel(); i++) {
            double wave = (double(i * 37 % 1009) / 504 - 1) * scale;
            x.as<X>()[i] = X(float(power == 2 ? wave * wave : wave));
        }
    };
    x.dtype == Dtype::f64 ? fill.operator()<double>() : fill.operator()<float>();
}
static void spec_step(Out step, Out clip) {
    OptimStep s{.lr = 0.01, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .step = 3};
    std::memcpy(step.as<double>(), &s, sizeof s);
    clip.as<double>()[0] = 2, clip.as<double>()[1] = 0.5;
}
static constinit Kernel<void(Out, double, int64_t)> spec_fill_kernel{
    "spec_fill", spec_fill, nullptr, {.on_host = true}};
static constinit Kernel<void(Out, Out)> spec_step_kernel{"spec_step", spec_step, nullptr, {.on_host = true}};

static RegisterOp op{{
    .name = "adamw",
    .build = [](Case& c) -> std::vector<Tensor> {
        Tape& t = tape();
        auto state = [&](const char* name, double scale, int64_t power) {
            Tensor x = t.tensor(name, {c["N"]}, sum_dtype(c.dtype()));
            t.run(spec_fill_kernel, x, scale, power);
            return x;
        };
        AdamWState s{state("m", 0.1, 1), state("v", 0.1, 2), {}, {}};
        if (c.get("amsgrad", 0)) s.max_v = state("max_v", 0.08, 2);
        Tensor w = state("w", 1, 1);
        if (c.dtype() == Dtype::bf16) s.master = std::exchange(w, t.tensor("w", {c["N"]}, Dtype::bf16));
        Tensor g = state("g", 1, 1), step = t.tensor("step", {OPTIM_STEP}, Dtype::f64),
               clip = t.tensor("clip", {2}, Dtype::f64);
        t.run(spec_step_kernel, step, clip);
        adamw(w, s, g, step, clip);
        return {t.written(s.m), t.written(s.v), t.written(s.master ? s.master : w)};
    },
    .cases = {"N=1", "N=100", "N=20001", "N=333 amsgrad=1", "bench N=10000000"},
    .gradients = false,
}};

} // namespace nvl
