// kernels/attention: training, prefill in chunks and decode from pages give a row the same bits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/plan/program.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/paged.h"

using namespace nvl;

namespace {

struct Sizes {
    std::vector<int> lengths; // of the sequences
    int64_t H, G, D, Dv;
    AttentionOptions o{};
    bool sunk = false;
    int64_t tokens() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t(0)); }
};

template <class X> void fill(const Tensor& x, uint64_t key, double scale = 1) {
    Random random(key, "attention test");
    X* p = host<X>(x);
    for (int64_t i = 0; i < x.shape().numel(); i++) p[i] = X(float(scale * random.normal(uint64_t(i))));
}
void fill(const Tensor& x, const std::vector<int>& values) {
    std::copy(values.begin(), values.end(), host<int32_t>(x));
}

// Sequences one after another, with the result of training attention over all of them at once.
template <class X> struct Trained {
    Sizes s;
    Store store;
    Tensor q, k, v, starts, sinks;
    std::vector<int> start{0};
    std::vector<X> y;
    std::vector<sum_t<X>> lse;

    explicit Trained(const Sizes& sizes) : s(sizes) {
        for (int n : s.lengths) start.push_back(start.back() + n);
        int64_t T = s.tokens();
        q = store.tensor("q", {T, s.H, s.D}, dtype_of<X>), k = store.tensor("k", {T, s.G, s.D}, dtype_of<X>);
        v = store.tensor("v", {T, s.G, s.Dv}, dtype_of<X>);
        starts = store.tensor("starts", {int64_t(start.size())}, Dtype::i32);
        if (s.sunk) fill<X>(sinks = store.tensor("sinks", {s.H}, dtype_of<X>), 4, 2);
        fill<X>(q, 1, 2), fill<X>(k, 2), fill<X>(v, 3), fill(starts, start);
        Tape tape(Tape::eager);
        Recording recording(tape);
        Tensor out = attention(q, k, v, starts, s.o, sinks);
        y.assign(host<X>(out), host<X>(out) + out.shape().numel());
    }
    /// Row by the formula in f64.
    std::vector<double> naive(int64_t n, int64_t i, int64_t h) const {
        const X *Q = host<X>(q), *K = host<X>(k), *V = host<X>(v);
        int64_t g = h / (s.H / s.G), base = start[size_t(n)], length = s.lengths[size_t(n)];
        std::vector<double> out(size_t(s.Dv)), z(size_t(length), -INFINITY);
        double total = sinks ? std::exp(double(host<X>(sinks)[h])) : 0;
        for (int64_t j = 0; j < length; j++) {
            bool sees = (!s.o.causal || j <= i) && (!s.o.window || std::abs(i - j) < s.o.window);
            if (!sees) continue;
            double dot = 0;
            for (int64_t d = 0; d < s.D; d++)
                dot +=
                    double(Q[((base + i) * s.H + h) * s.D + d]) * double(K[((base + j) * s.G + g) * s.D + d]);
            dot *= s.o.scale ? s.o.scale : 1 / std::sqrt(double(s.D));
            z[size_t(j)] = s.o.softcap ? s.o.softcap * std::tanh(dot / s.o.softcap) : dot;
            total += std::exp(z[size_t(j)]);
        }
        for (int64_t j = 0; j < length; j++)
            for (int64_t c = 0; c < s.Dv; c++)
                out[size_t(c)] +=
                    std::exp(z[size_t(j)]) / total * double(V[((base + j) * s.G + g) * s.Dv + c]);
        return out;
    }
};

// The same sequences served: each round gives every unfinished sequence its next `chunk` tokens (0: all of
// them), their keys go to shuffled pages. One program, planned for more rows and sequences than any round
// has.
template <class X> std::vector<X> serve(const Trained<X>& t, int chunk) {
    const Sizes& s = t.s;
    int64_t N = int64_t(s.lengths.size()), T = s.tokens() + 3;
    int64_t pages = (*std::max_element(s.lengths.begin(), s.lengths.end()) + PAGE - 1) / PAGE + 1;
    Store store;
    Tensor k_cache = store.tensor("k cache", {(N * pages + 2) * PAGE, s.G, s.D}, dtype_of<X>);
    Tensor v_cache = store.tensor("v cache", {(N * pages + 2) * PAGE, s.G, s.Dv}, dtype_of<X>);
    fill<X>(k_cache, 8, 50), fill<X>(v_cache, 9, 50); // what is not written yet must not matter
    auto page = [&](int64_t n, int64_t b) { return int(((n * pages + b) * 7 + 3) % (N * pages)); };
    while (std::gcd<int64_t>(7, N * pages) != 1) pages++; // a permutation

    Tape tape;
    Recording recording(tape);
    tape.no_grad();
    Dim rows = tape.capacity(T), count = tape.capacity(N + 2);
    Tensor q = tape.input("q", {rows, s.H, s.D}, dtype_of<X>),
           k = tape.input("k", {rows, s.G, s.D}, dtype_of<X>),
           v = tape.input("v", {rows, s.G, s.Dv}, dtype_of<X>);
    Tensor slots = tape.input("slots", {rows}, Dtype::i32);
    Tensor table = tape.input("table", {count, pages}, Dtype::i32);
    Tensor starts = tape.input("starts", {N + 3}, Dtype::i32),
           lengths = tape.input("lengths", {count}, Dtype::i32);
    Tensor kc = kv_append(k_cache, k, slots), vc = kv_append(v_cache, v, slots);
    Tensor y = tape.keep(attention_paged(q, kc, vc, table, starts, lengths, s.o, t.sinks));
    Program program(tape);
    program.run({.counts = {0, 0}});

    std::vector<X> result(t.y.size());
    std::vector<int> done(size_t(N), 0);
    for (bool busy = true; busy;) {
        busy = false;
        int64_t row = 0, sequence = 0;
        std::vector<std::pair<int64_t, int64_t>> origin; // (row served, row trained)
        for (int64_t n = 0; n < N; n++) {
            int length = s.lengths[size_t(n)], from = done[size_t(n)];
            int to = chunk ? std::min(length, from + chunk) : length;
            if (from == length) continue;
            busy = true, done[size_t(n)] = to;
            program.data<int32_t>(starts)[sequence] = int(row), program.data<int32_t>(lengths)[sequence] = to;
            for (int64_t b = 0; b < pages; b++)
                program.data<int32_t>(table)[sequence * pages + b] = b * PAGE < to ? page(n, b) : -1;
            for (int i = from; i < to; i++, row++) {
                int64_t at = t.start[size_t(n)] + i;
                std::copy_n(host<X>(t.q) + at * s.H * s.D, s.H * s.D, program.data<X>(q) + row * s.H * s.D);
                std::copy_n(host<X>(t.k) + at * s.G * s.D, s.G * s.D, program.data<X>(k) + row * s.G * s.D);
                std::copy_n(host<X>(t.v) + at * s.G * s.Dv, s.G * s.Dv,
                            program.data<X>(v) + row * s.G * s.Dv);
                program.data<int32_t>(slots)[row] = int(page(n, i / PAGE) * PAGE + i % PAGE);
                origin.push_back({row, at});
            }
            sequence++;
        }
        program.data<int32_t>(starts)[sequence] = int(row);
        program.run({.counts = {row, sequence}});
        for (auto [from, to] : origin)
            std::copy_n(program.data<X>(y) + from * s.H * s.Dv, s.H * s.Dv, result.data() + to * s.H * s.Dv);
    }
    return result;
}

template <class X> void expect_same_bits(const Sizes& s) {
    Trained<X> trained(s);
    double worst = 0;
    for (int64_t n = 0; n < int64_t(s.lengths.size()); n++)
        for (int64_t i = 0; i < s.lengths[size_t(n)]; i += 13)
            for (int64_t h = 0; h < s.H; h++) {
                auto y = trained.naive(n, i, h);
                for (int64_t c = 0; c < s.Dv; c++)
                    worst = std::max(
                        worst,
                        std::abs(
                            y[size_t(c)] -
                            double(
                                trained.y[size_t(((trained.start[size_t(n)] + i) * s.H + h) * s.Dv + c)])));
            }
    EXPECT_LT(worst, sizeof(X) == 2 ? 3e-2 : sizeof(X) == 4 ? 5e-6 : 1e-12);
    for (int chunk : {0, 1, 3, 17}) {
        std::vector<X> served = serve(trained, chunk);
        EXPECT_EQ(0, std::memcmp(served.data(), trained.y.data(), served.size() * sizeof(X)))
            << "chunks of " << chunk << ", " << name_of(dtype_of<X>);
    }
}
void expect_same_bits_in_all_types(const Sizes& s) {
    expect_same_bits<float>(s), expect_same_bits<bf16>(s), expect_same_bits<double>(s);
}

} // namespace

TEST(Attention, ServedEqualsTrainedBitForBit) {
    expect_same_bits_in_all_types({{1, 64, 7, 130, 65}, 4, 2, 64, 64});
}
TEST(Attention, ServedEqualsTrainedWithWindow) {
    expect_same_bits_in_all_types({{150, 90}, 3, 1, 20, 36, {.window = 70}});
}
TEST(Attention, ServedEqualsTrainedWithSoftcap) {
    expect_same_bits_in_all_types({{80, 33}, 2, 2, 16, 16, {.scale = 0.3, .softcap = 4}});
}
TEST(Attention, ServedEqualsTrainedWithSinks) {
    expect_same_bits_in_all_types({{80, 130}, 4, 2, 16, 24, {.window = 40}, true});
}
TEST(Attention, ServedEqualsTrainedAcrossSegments) {
    Sizes s{{2100}, 1, 1, 16, 16};
    Trained<float> trained(s);
    for (int chunk : {0, 500, 17}) {
        std::vector<float> served = serve(trained, chunk);
        EXPECT_EQ(0, std::memcmp(served.data(), trained.y.data(), served.size() * sizeof(float))) << chunk;
    }
    auto y = trained.naive(0, 2099, 0);
    for (int64_t c = 0; c < 16; c++) EXPECT_NEAR(y[size_t(c)], trained.y[size_t(2099 * 16 + c)], 2e-6);
}

// The rows of a sequence are the same bits whatever stands beside it and after it.
TEST(Attention, RowsDependOnTheirSequenceAlone) {
    Sizes s{{100}, 2, 1, 24, 24};
    Trained<float> alone(s);
    s.lengths = {100, 9};
    Trained<float> two(s); // the inputs are functions of the index, so the first sequence is the same
    EXPECT_EQ(0, std::memcmp(alone.y.data(), two.y.data(), alone.y.size() * sizeof(float)));
    s.lengths = {61};
    Trained<float> prefix(s);
    EXPECT_EQ(0, std::memcmp(alone.y.data(), prefix.y.data(), prefix.y.size() * sizeof(float)));
    int before = threads();
    set_threads(3);
    s.lengths = {100};
    EXPECT_EQ(alone.y, Trained<float>(s).y);
    set_threads(before);
}

TEST(Attention, NotANumberIsNotHidden) {
    for (bool infinite : {false, true}) {
        Sizes s{{70}, 1, 1, 16, 16};
        Trained<float> t(s);
        host<float>(t.k)[3 * 16] = infinite ? INFINITY : NAN;
        Tape tape(Tape::eager);
        Recording recording(tape);
        Tensor y = attention(t.q, t.k, t.v, t.starts);
        EXPECT_TRUE(std::isfinite(host<float>(y)[2 * 16]));
        int64_t bad = 0;
        for (int64_t i = 3; i < 70; i++) bad += !std::isfinite(host<float>(y)[i * 16]);
        EXPECT_GE(bad, infinite ? 20 : 67); // q * inf may be -inf: that key is then not seen
    }
}

TEST(Attention, WrongInputIsOneClearError) {
    auto message = [](auto f) {
        try {
            f();
        } catch (const Error& e) {
            return std::string(e.what());
        }
        return std::string("no error");
    };
    Sizes s{{5}, 2, 1, 8, 8};
    Trained<float> t(s);
    Tape tape(Tape::eager);
    Recording recording(tape);
    tape.no_grad();
    EXPECT_NE(message([&] { attention(t.q, t.k, t.q, t.starts); }).find("multiple of G"), std::string::npos);
    host<int32_t>(t.starts)[1] = 4;
    EXPECT_NE(message([&] { attention(t.q, t.k, t.v, t.starts); }).find("sequence_starts"),
              std::string::npos);
    Store store;
    Tensor cache = store.tensor("cache", {64, 1, 8}, Dtype::f32),
           slots = store.tensor("slots", {5}, Dtype::i32);
    Tensor keys = store.tensor("keys", {64, 1, 8}, Dtype::f32);
    Tensor table = store.tensor("table", {1, 1}, Dtype::i32),
           lengths = store.tensor("lengths", {1}, Dtype::i32);
    fill(slots, {0, 1, 2, 3, 64});
    EXPECT_NE(message([&] { kv_append(cache, t.k, slots); }).find("slot 64"), std::string::npos);
    fill(t.starts, {0, 5}), fill(table, {1}), fill(lengths, {5});
    auto paged = [&] { attention_paged(t.q, keys, keys, table, t.starts, lengths); };
    EXPECT_NE(message(paged).find("page 0 of sequence 0 is 1"), std::string::npos);
    fill(lengths, {65});
    EXPECT_NE(message(paged).find("room for 64"), std::string::npos);
}
