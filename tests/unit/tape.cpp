// The engine's promises: views and their gradients, recompute, capacities, eager mode, versions, the plan.
#include <gtest/gtest.h>

#include <functional>

#include "engine/base/rng.h"
#include "engine/plan/program.h"
#include "engine/tape/passes.h"
#include "kernels/norm/rmsnorm.h"
#include "kernels/pointwise/add.h"
#include "kernels/types.h"

using namespace nvl;

namespace {

// y = a * b, with a kernel that writes all of da before any of db: the order that a GPU might pick.
void product(Out y, In a, In b) {
    for (int64_t i = 0; i < y.rows(); i++)
        for (int64_t c = 0; c < y.cols(); c++)
            y.row<double>(i)[c] = a.row<double>(i)[c] * b.row<double>(i)[c];
}
void product_backward(Acc da, Acc db, In dy, In a, In b) {
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < dy.rows(); i++)
            for (int64_t c = 0; c < dy.cols(); c++) {
                if (pass == 0 && da) da.put(da.row<double>(i)[c], dy.row<double>(i)[c] * b.row<double>(i)[c]);
                if (pass == 1 && db) db.put(db.row<double>(i)[c], dy.row<double>(i)[c] * a.row<double>(i)[c]);
            }
}
constinit Kernel<void(Out, In, In)> product_forward{"product", product};
constinit Kernel<void(Acc, Acc, In, In, In)> product_back{"product_backward", product_backward};
Tensor times(Tensor a, Tensor b) {
    Tape& t = tape();
    Tensor y = t.tensor("times", a.shape(), a.dtype());
    t.run(product_forward, y, a, b);
    t.on_backward({y}, [=, &t] { t.run(product_back, t.into(a), t.into(b), t.grad(y), a, b); });
    return y;
}
// s = sum of the elements of x
constinit Kernel<void(Out, In)> sum_forward{"sum", [](Out s, In x) {
                                                double total = 0;
                                                for (int64_t i = 0; i < x.rows(); i++)
                                                    for (int64_t c = 0; c < x.cols(); c++)
                                                        total += x.row<double>(i)[c];
                                                *s.row<double>(0) = total;
                                            }};
constinit Kernel<void(Acc, In)> sum_back{"sum_backward", [](Acc dx, In ds) {
                                             for (int64_t i = 0; i < dx.rows(); i++)
                                                 for (int64_t c = 0; c < dx.cols(); c++)
                                                     dx.put(dx.row<double>(i)[c], *ds.row<double>(0));
                                         }};
Tensor sum(Tensor x) {
    Tape& t = tape();
    Tensor s = t.tensor("sum", {1}, x.dtype());
    t.run(sum_forward, s, x);
    t.on_backward({s}, [=, &t] { t.run(sum_back, t.into(x), t.grad(s)); });
    return s;
}
// cache[rows[i]] = x[i] in place
constinit Kernel<void(InOut, In)> overwrite_kernel{"overwrite", [](InOut cache, In x) {
                                                       for (int64_t c = 0; c < x.cols(); c++)
                                                           cache.row<double>(0)[c] = x.row<double>(0)[c];
                                                   }};

struct Graph {
    Store store;
    std::vector<Tensor> parameters;
    Tensor parameter(const char* name, Shape s, double mean = 0) {
        Tensor w = store.parameter(name, s, Dtype::f64);
        for (int64_t i = 0; i < s.numel(); i++)
            host<double>(w)[i] = mean + Random(7, name).normal(uint64_t(i));
        parameters.push_back(w);
        return w;
    }
    std::string listing;
    // Largest error of any gradient entry against central differences.
    double error(const std::function<Tensor()>& build, std::vector<int64_t> counts = {}) {
        Tape t;
        Recording r(t);
        Tensor loss = t.keep(build());
        t.seed(loss, {});
        t.backward(parameters);
        eliminate_dead(t);
        Program p(t);
        listing = p.listing();
        Run run{.counts = counts, .poison = true};
        p.run(run);
        std::vector<std::vector<double>> gradients;
        for (Tensor& w : parameters)
            gradients.emplace_back(host<double>(gradient_of(w)),
                                   host<double>(gradient_of(w)) + w.shape().numel());
        double worst = 0;
        for (size_t k = 0; k < parameters.size(); k++)
            for (size_t i = 0; i < gradients[k].size(); i++) {
                double* x = host<double>(parameters[k]) + i;
                double before = *x, side[2];
                for (int s = 0; s < 2; s++) {
                    *x = before + (s ? 1e-5 : -1e-5);
                    p.run(run);
                    side[s] = p.data<double>(loss)[0];
                }
                *x = before;
                worst = std::max(worst, std::abs(gradients[k][i] - (side[1] - side[0]) / 2e-5));
            }
        return worst;
    }
    bool has_step(const std::string& kernel) const {
        return listing.find(" " + kernel + " ") != std::string::npos;
    }
};

void expect_error(const std::function<void()>& f, const std::string& part) {
    try {
        f();
        ADD_FAILURE() << "expected an error with \"" << part << "\"";
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
}

constexpr double TIGHT = 1e-6;

} // namespace

TEST(Views, OverlappingAndPartialCoverage) {
    Graph g;
    Tensor x = g.parameter("x", {5, 12}), w = g.parameter("w", {12}, 1);
    EXPECT_LT(g.error([&] { // columns 6, 7 of y are touched twice, 10 and 11 by nobody
        Tensor y = rmsnorm(x, w), a = slice(y, 1, 0, 4), b = slice(y, 1, 4, 8), d = slice(y, 1, 6, 10);
        return add(sum(times(a, b)), sum(times(d, d)));
    }),
              TIGHT);
    EXPECT_TRUE(g.has_step("zero")) << "untouched elements of the base must read as zero";
}
TEST(Views, DisjointCoverageNeedsNoZero) {
    Graph g;
    Tensor x = g.parameter("x", {6, 12}), w = g.parameter("w", {12}, 1);
    EXPECT_LT(g.error([&] {
        Tensor y = reshape(rmsnorm(x, w), {6, 6, 2});
        return add(sum(times(slice(y, 1, 0, 2), slice(y, 1, 2, 4))),
                   sum(times(slice(y, 1, 4, 6), slice(y, 1, 4, 6))));
    }),
              TIGHT);
    EXPECT_FALSE(g.has_step("zero")) << g.listing;
}
TEST(Views, Geometry) {
    Layout base = Layout::contiguous({4, 6, 2});
    EXPECT_EQ(relation(slice(base, 1, 0, 3), slice(base, 1, 3, 6)), Relation::disjoint);
    EXPECT_EQ(relation(slice(base, 1, 1, 3), slice(base, 1, 0, 3)), Relation::inside);
    EXPECT_EQ(relation(slice(base, 1, 0, 4), slice(base, 1, 3, 6)), Relation::unknown);
    EXPECT_EQ(relation(base, Layout::contiguous({48})), Relation::inside);
    expect_error([&] { reshape(slice(base, 1, 0, 3), {24}); }, "contiguous");
    Layout headed = Layout::contiguous({3, Dim(4, 1), 2});
    expect_error([&] { reshape(headed, {Dim(12, 1), 2}); }, "outermost");
    expect_error([&] { slice(headed, 1, 0, 2); }, "capacity");
}
// Every region of small strided boxes against brute force: `disjoint` and `inside` must never be wrong.
TEST(Views, RelationAgainstEnumeration) {
    auto elements = [](const Layout& l) {
        std::vector<bool> hit(96, false);
        for (int64_t i = 0; i < l.shape.numel(); i++) {
            int64_t at = l.offset, rest = i;
            for (int d = l.shape.rank - 1; d >= 0; d--)
                at += rest % l.shape[d] * l.stride[size_t(d)], rest /= l.shape[d];
            hit[size_t(at)] = true;
        }
        return hit;
    };
    Random random(3);
    auto view = [&](uint64_t n) {
        Layout l = Layout::contiguous(n % 2 ? Shape{4, 6, 4} : Shape{8, 12});
        for (int d = 0; d < l.shape.rank; d++) {
            int64_t size = l.shape[d], from = int64_t(random.below(n * 8 + uint64_t(d), uint64_t(size)));
            l = slice(l, d, from,
                      from + 1 + int64_t(random.below(n * 8 + 4 + uint64_t(d), uint64_t(size - from))));
        }
        return l;
    };
    int known = 0;
    for (uint64_t n = 0; n < 2000; n += 2) {
        Layout a = view(n), b = view(n + random.below(n, 2));
        auto x = elements(a), y = elements(b);
        bool overlap = false, inside = true;
        for (size_t i = 0; i < x.size(); i++) overlap |= x[i] && y[i], inside &= !x[i] || y[i];
        Relation r = relation(a, b);
        if (r == Relation::disjoint) EXPECT_FALSE(overlap);
        if (r == Relation::inside) EXPECT_TRUE(inside);
        known += r != Relation::unknown;
    }
    EXPECT_GT(known, 100);
}

TEST(Gradients, SameTensorTwice) {
    Graph g;
    Tensor x = g.parameter("x", {3, 4}), w = g.parameter("w", {4}, 1);
    EXPECT_LT(g.error([&] {
        Tensor y = rmsnorm(x, w);
        return sum(times(y, y));
    }),
              TIGHT);
    EXPECT_LT(
        g.error([&] { return sum(times(slice(rmsnorm(x, w), 1, 0, 3), slice(rmsnorm(x, w), 1, 1, 4))); }),
        TIGHT);
    EXPECT_LT(g.error([&] {
        Tensor y = rmsnorm(x, w);
        return sum(times(slice(y, 1, 0, 3), slice(y, 1, 1, 4)));
    }),
              TIGHT);
}
TEST(Gradients, FrozenAndUnused) {
    Graph g;
    Tensor x = g.parameter("x", {3, 4}), a = g.parameter("a", {4}, 1);
    Tensor unused = g.parameter("unused", {2, 2}), frozen = g.store.tensor("frozen", {3, 4}, Dtype::f64);
    for (int i = 0; i < 12; i++) host<double>(frozen)[i] = i, host<double>(gradient_of(unused))[i % 4] = 9;
    EXPECT_LT(g.error([&] {
        rmsnorm(times(frozen, x), a); // nobody uses this
        return sum(times(frozen, x));
    }),
              TIGHT);
    EXPECT_FALSE(g.has_step("rmsnorm")) << "an unused op has no step";
    for (int i = 0; i < 4; i++) EXPECT_EQ(host<double>(gradient_of(unused))[i], 0) << "zero, not stale";
}
TEST(Gradients, Detach) {
    Graph g;
    Tensor x = g.parameter("x", {3, 4});
    Tape t;
    Recording r(t);
    Tensor y = times(x, x), loss = t.keep(sum(times(t.detach(y), y)));
    t.seed(loss, {});
    t.backward(g.parameters);
    Program p(t);
    p.run({.poison = true});
    for (int i = 0; i < 12; i++) { // d/dx of (x^2 held fixed) * x^2
        double v = host<double>(x)[i];
        EXPECT_NEAR(host<double>(gradient_of(x))[i], 2 * v * v * v, 1e-12 * std::abs(v * v * v) + 1e-15);
    }
}

static std::vector<double> train(bool checkpoint, Tape::Mode mode, int64_t T, int64_t capacity,
                                 int64_t* memory = nullptr) {
    Graph g;
    Tensor x = g.parameter("x", {capacity, 8}), w = g.parameter("w", {8}, 1);
    Tape t(mode);
    Recording r(t);
    Tensor h = with_rows(x, t.capacity(capacity));
    auto block = [](Tensor x, Tensor w) {
        Tensor y = rmsnorm(x, w), both = times(y, y);
        return add(add(x, both), rmsnorm(times(both, y), w));
    };
    for (int l = 0; l < 4; l++) h = checkpoint ? t.checkpoint(block, h, w) : block(h, w);
    Tensor loss = t.keep(sum(times(h, h)));
    t.seed(loss, {});
    t.backward(g.parameters);
    std::vector<double> result;
    if (mode == Tape::planned) {
        eliminate_dead(t);
        Program p(t);
        p.run({.counts = {T}, .poison = true});
        if (memory) *memory = p.planned_bytes();
        result.push_back(p.data<double>(loss)[0]);
    } else
        result.push_back(*host<double>(loss));
    for (int64_t i = 0; i < T * 8; i++) result.push_back(host<double>(gradient_of(x))[i]);
    for (int64_t i = 0; i < 8; i++) result.push_back(host<double>(gradient_of(w))[i]);
    return result;
}
TEST(Modes, RecomputeEagerAndCapacityGiveTheSameBits) {
    int64_t kept = 0, recomputed = 0;
    auto plain = train(false, Tape::planned, 12, 12, &kept);
    EXPECT_EQ(train(true, Tape::planned, 12, 12, &recomputed), plain);
    EXPECT_LT(recomputed, kept * 3 / 4);
    EXPECT_EQ(train(false, Tape::eager, 12, 12), plain);
    EXPECT_EQ(train(true, Tape::eager, 12, 12), plain);
    for (int64_t T : {0, 1, 5, 12})
        EXPECT_EQ(train(false, Tape::planned, T, 12), train(false, Tape::planned, T, std::max<int64_t>(T, 1)))
            << T;
}

TEST(Rules, RefusedWhenRecorded) {
    Store s;
    Tape t;
    Recording r(t);
    Tensor w = s.parameter("w", {2, 2}, Dtype::f64), y = times(w, w), z = t.tensor("z", {2, 2}, Dtype::f64);
    expect_error([&] { t.run(product_forward, y, y, w); }, "also passed");
    expect_error(
        [&] {
            add(z, w);
            Program p(t);
        },
        "no step has written");
    Tape other;
    Recording o(other);
    expect_error([&] { add(y, y); }, "another tape");
}
TEST(Rules, OldHandleAfterInPlaceWrite) {
    Store s;
    Tape t;
    Recording r(t);
    Tensor cache = s.tensor("cache", {4, 2}, Dtype::f64), x = s.tensor("x", {1, 2}, Dtype::f64);
    t.run(overwrite_kernel, cache, x);
    expect_error([&] { times(cache, cache); }, "overwritten in place");
    Tensor fresh = t.written(cache);
    times(fresh, fresh);
}
TEST(Rules, SplitWeightGradientsChangesNoBit) {
    auto run = [](bool split) {
        Graph g;
        Tensor x = g.parameter("x", {6, 8}), w = g.parameter("w", {6, 8});
        Tape t;
        Recording r(t);
        Tensor loss = t.keep(sum(times(add(x, w), w)));
        t.segment(1);
        t.seed(loss, {});
        t.backward(g.parameters);
        if (split) EXPECT_GT(split_weight_gradients(t, 1), 0);
        Program p(t);
        p.run({.poison = true});
        return std::vector<double>(host<double>(gradient_of(w)), host<double>(gradient_of(w)) + 48);
    };
    EXPECT_EQ(run(false), run(true));
}
TEST(Plan, PackNeverOverlaps) {
    Random random(5);
    std::vector<Item> items;
    for (uint64_t i = 0; i < 200; i++) {
        int first = int(random.below(3 * i, 100));
        items.push_back(
            {int64_t(1 + random.below(3 * i + 1, 50)), first, first + int(random.below(3 * i + 2, 20))});
    }
    int64_t peak = pack(items);
    for (auto& a : items) {
        EXPECT_LE(a.offset + a.bytes, peak);
        for (auto& b : items)
            if (&a != &b && a.first <= b.last && b.first <= a.last)
                EXPECT_TRUE(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset);
    }
}
TEST(Types, MissingCollectiveIsNamed) {
    Mesh mesh{.size = {1, 1, 2, 1}};
    Tape t(Tape::planned, &mesh);
    Recording r(t);
    Store s;
    Tensor x = s.tensor("x", {4, 8}, Dtype::f64, {Invariant, Invariant, Shard(0), Invariant}),
           w = s.tensor("norm", {8}, Dtype::f64);
    expect_error([&] { rmsnorm(x, w); }, "rmsnorm: norm is Invariant on axis tp and x is S(0)");
    Tensor partial = s.tensor("p", {4, 8}, Dtype::f64, {Invariant, Invariant, Partial, Invariant});
    expect_error([&] { rmsnorm(partial, w); }, "reduce it first");
}
