#include "kernels/optim/muon.h"

#include <cmath>

#include "engine/base/text.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/sums.h"
#include "kernels/linear/matrix.h"
#include "kernels/spec.h"

namespace nvl {

// A symmetric product is computed by blocks of rows up to the diagonal block, then mirrored.
constexpr int64_t SYMMETRIC_BLOCK = 192;

template <class F> static void symmetric_blocks(int64_t n, F body) {
    for (int64_t from = 0; from < n; from += SYMMETRIC_BLOCK) body(from, std::min(n, from + SYMMETRIC_BLOCK));
}
static double symmetric_flops(int64_t n, int64_t k) {
    double elements = 0;
    symmetric_blocks(n, [&](int64_t from, int64_t to) { elements += double(to - from) * double(to); });
    return 2 * elements * double(k);
}

template <class X> static void mirror(X* c, int64_t n) {
    constexpr int64_t TILE = 32;
    parallel_for((n + TILE - 1) / TILE, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i0 = begin * TILE; i0 < std::min(n, end * TILE); i0 += TILE)
            for (int64_t j0 = i0; j0 < n; j0 += TILE)
                for (int64_t i = i0; i < std::min(n, i0 + TILE); i++)
                    for (int64_t j = std::max(j0, i + 1); j < std::min(n, j0 + TILE); j++)
                        c[i * n + j] = c[j * n + i];
    });
}
/// c (n,n) = a a^T.
static void symmetric_product(Matrix c, Matrix a) {
    symmetric_blocks(c.rows, [&](int64_t from, int64_t to) {
        Matrix left = c.part(from, to); // its first `to` columns
        left.cols = to;
        product(left, a.part(from, to), a.part(0, to).t());
    });
    dispatch(c.dtype, [&]<class X> { mirror(static_cast<X*>(c.data), c.rows); });
}

template <class F> static void each(int64_t n, F body) {
    parallel_for((n + 4095) / 4096, 4, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * 4096; i < std::min(n, end * 4096); i++) body(i);
    });
}
template <class A> static double frobenius(const A* x, int64_t n) {
    constexpr int64_t BLOCK = 16384;
    double total = 0;
    for (int64_t b = 0; b < n; b += BLOCK)
        total += lane_sum<double>(std::min(BLOCK, n - b),
                                  [&](int64_t i) { return double(x[b + i]) * double(x[b + i]); });
    return std::sqrt(total);
}

// x in place; `low` holds it in the type P of the products (x itself if P is A), gram and poly are (s,s) in
// P, square (s,s) in A.
template <class A, class P> static void iterate(const View& xv, const View& lowv, const View& gramv,
                                                const View& squarev, const View& polyv,
                                                const MuonOptions& o) {
    A* x = xv.as<A>();
    P *low = lowv.as<P>(), *poly = polyv.as<P>();
    const P* gram = gramv.as<P>();
    const A* square = squarev.as<A>();
    int64_t n = xv.numel();
    bool tall = xv.dim(0) > xv.dim(1);
    Matrix X = matrix(xv), L = matrix(lowv);
    if (tall) X = X.t(), L = L.t();
    A scale = A(1 / std::max(frobenius(x, n), o.norm_eps)), a = A(o.a), b = A(o.b), c = A(o.c);
    each(n, [&](int64_t i) { low[i] = P(x[i] * scale), x[i] = A(low[i]); });
    for (int k = 0; k < o.iterations; k++) {
        symmetric_product(matrix(gramv), L);
        symmetric_product(matrix(squarev), matrix(gramv));
        each(gramv.numel(), [&](int64_t i) { poly[i] = P(std::fma(c, square[i], b * A(gram[i]))); });
        each(n, [&](int64_t i) { x[i] *= a; });
        product(X, matrix(polyv), L, {.add = true});
        each(n, [&](int64_t i) { low[i] = P(x[i]); });
    }
}

static void newton_schulz_cpu(InOut x, Out low, Out gram, Out square, Out poly, MuonOptions o) {
    if (x.dtype == Dtype::f64)
        iterate<double, double>(x, low, gram, square, poly, o);
    else if (low.dtype == Dtype::f32)
        iterate<float, float>(x, low, gram, square, poly, o);
    else
        iterate<float, bf16>(x, low, gram, square, poly, o);
}
static double newton_schulz_flops(InOut x, Out, Out, Out, Out, MuonOptions o) {
    int64_t s = std::min(x.dim(0), x.dim(1)), l = std::max(x.dim(0), x.dim(1));
    double rest = 2 * double(s) * double(s) * double(l);
    return o.iterations * (symmetric_flops(s, l) + symmetric_flops(s, s) + rest);
}

static void momentum_cpu(InOut m, Out u, In g, In step, In clip, bool nesterov) {
    double scale = clip_of(clip);
    int64_t n = dense_count("muon", m);
    check(dense_count("muon", g) == n, "muon: the gradient has %ld elements, expected %ld", g.numel(), n);
    auto update = [&]<class A>() {
        A *pm = m.as<A>(), *pu = u.as<A>(), momentum = A(step_of(step).beta1),
          toward = A(1 - step_of(step).beta1), by = A(scale);
        const A* pg = g.as<A>();
        bool finite = !std::isnan(scale);
        each(n, [&](int64_t i) {
            A d = pg[i] * by, v = std::fma(toward, d - pm[i], pm[i]);
            pm[i] = finite ? v : pm[i];
            pu[i] = nesterov ? std::fma(momentum, v - d, d) : v;
        });
    };
    m.dtype == Dtype::f64 ? update.operator()<double>() : update.operator()<float>();
}

// w = keep w - size u; `rounded` (may be empty) receives the bf16 copy.
static void apply(const View& w, const View& rounded, const View& u, const View& step, const View& clip,
                  MuonAdjust adjust) {
    OptimStep s = step_of(step);
    double rows = double(w.dim(0)), cols = double(w.dim(1));
    double factor = adjust == MuonAdjust::original ? std::sqrt(std::max(1.0, rows / cols))
                                                   : 0.2 * std::sqrt(std::max(rows, cols));
    bool finite = !std::isnan(clip_of(clip));
    int64_t n = dense_count("muon", w);
    bf16* copy = rounded ? rounded.as<bf16>() : nullptr;
    auto update = [&]<class A>() {
        A *pw = w.as<A>(), keep = A(1 - s.lr * s.weight_decay), size = A(s.lr * factor);
        const A* pu = u.as<A>();
        if (finite) each(n, [&](int64_t i) { pw[i] = std::fma(-size, pu[i], keep * pw[i]); });
        if (copy) each(n, [&](int64_t i) { copy[i] = bf16(float(pw[i])); });
    };
    w.dtype == Dtype::f64 ? update.operator()<double>() : update.operator()<float>();
}
static void apply_cpu(InOut w, In u, In step, In clip, MuonAdjust adjust) {
    apply(w, {}, u, step, clip, adjust);
}
static void apply_master_cpu(InOut master, Out w, In u, In step, In clip, MuonAdjust adjust) {
    check(dense_count("muon", w) == master.numel(), "muon: the master has another size");
    apply(master, w, u, step, clip, adjust);
}

constinit Kernel<void(InOut, Out, Out, Out, Out, MuonOptions)> newton_schulz_kernel{
    "newton_schulz", newton_schulz_cpu, newton_schulz_flops};
constinit Kernel<void(InOut, Out, In, In, In, bool)> muon_momentum{"muon_momentum", momentum_cpu};
constinit Kernel<void(InOut, In, In, In, MuonAdjust)> muon_apply{"muon_apply", apply_cpu};
constinit Kernel<void(InOut, Out, In, In, In, MuonAdjust)> muon_apply_master{"muon_apply_master",
                                                                             apply_master_cpu};

MuonAdjust muon_adjust_from(const std::string& name) {
    if (name == "original") return MuonAdjust::original;
    if (name == "match_rms_adamw") return MuonAdjust::match_rms_adamw;
    fail("muon: unknown adjustment \"%s\"; expected original or match_rms_adamw (did you mean %s?)",
         name.c_str(), nearest(name, {"original", "match_rms_adamw"}).c_str());
}

MuonState muon_state(Store& store, const Tensor& w) {
    check(w.shape().rank == 2 || w.shape().rank == 3, "muon: %s is %s; expected a matrix or a stack of them",
          w.name(), w.shape().text().c_str());
    return {store.tensor(std::string(w.name()) + ".m", w.shape(), sum_dtype(w.dtype()), w.type),
            master_of(store, w)};
}

Tensor newton_schulz(Tensor x, const MuonOptions& o) {
    check(x.shape().rank == 2 && x.dtype() != Dtype::bf16,
          "newton_schulz: %s is %s %s; expected an f32 matrix", x.name(), x.shape().text().c_str(),
          name_of(x.dtype()));
    Tape& t = tape();
    int64_t s = std::min(x.dim(0).size, x.dim(1).size);
    Dtype products = x.dtype() == Dtype::f64 ? Dtype::f64 : o.products;
    check(products != Dtype::f64 || x.dtype() == Dtype::f64, "newton_schulz: f64 products of an f32 matrix");
    t.run(newton_schulz_kernel, x, t.tensor("low", x.shape(), products), t.tensor("gram", {s, s}, products),
          t.tensor("square", {s, s}, x.dtype()), t.tensor("polynomial", {s, s}, products), o);
    return t.written(x);
}

void muon(Tensor w, const MuonState& s, Tensor gradient, Tensor step, Tensor clip, const MuonOptions& o) {
    Tape& t = tape();
    if (w.shape().rank == 3) {
        for (int64_t e = 0; e < w.dim(0); e++) {
            auto part = [&](Tensor x) {
                return x ? reshape(slice(t.written(x), 0, e, e + 1), {x.dim(1), x.dim(2)}) : x;
            };
            muon(part(w), {part(s.m), part(s.master)}, part(gradient), step, clip, o);
        }
        return;
    }
    check(w.shape().rank == 2 && gradient.shape() == w.shape() && s.m.shape() == w.shape(),
          "muon: %s is %s, its gradient %s; expected equal matrices", w.name(), w.shape().text().c_str(),
          gradient.shape().text().c_str());
    Tensor u = t.tensor("update", w.shape(), s.m.dtype());
    t.run(muon_momentum, s.m, u, gradient, step, clip, o.nesterov);
    u = newton_schulz(u, o);
    if (s.master)
        t.run(muon_apply_master, s.master, w, u, step, clip, o.adjust);
    else
        t.run(muon_apply, w, u, step, clip, o.adjust);
}

static void spec_copy(Out to, In from) {
    dispatch(from.dtype, [&]<class X> {
        for (int64_t i = 0; i < to.rows(); i++)
            for (int64_t c = 0; c < to.cols(); c++) to.row<sum_t<X>>(i)[c] = sum_t<X>(from.row<X>(i)[c]);
    });
}
static constinit Kernel<void(Out, In)> spec_copy_kernel{"spec_copy", spec_copy, nullptr, {.on_host = true}};

static RegisterOp op{{
    .name = "newton_schulz",
    .build = [](Case& c) -> std::vector<Tensor> {
        Tensor in = c.constant({c["R"], c["C"]});
        Tensor x = tape().tensor("x", in.shape(), sum_dtype(c.dtype()));
        tape().run(spec_copy_kernel, x, in);
        bool low = c.dtype() == Dtype::bf16;
        return {newton_schulz(x, {.products = low ? Dtype::bf16 : Dtype::f32})};
    },
    .cases = {"R=1 C=1", "R=5 C=9", "R=70 C=33", "R=3 C=64", "R=200 C=260", "bench R=768 C=768",
              "bench R=3072 C=768"},
    .f32_tolerance = 2e-5,
    .bf16_tolerance = 0.1, // five steps of products rounded to bf16
    .gradients = false,
}};

} // namespace nvl
