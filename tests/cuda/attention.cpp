// kernels/attention on the device: a row served from the cache has the same bits in a long chunk, in a short
// one and alone, whatever is served beside it; and those of training as long as one segment of keys is all it
// sees.
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/base/rng.h"
#include "engine/device/device.h"
#include "kernels/attention/paged.h"

using namespace nvl;

namespace {

DeviceBackend& device() { return backend_of(Device::cuda); }

/// A dense tensor on the device.
struct OnDevice : View {
    template <class X> OnDevice(std::initializer_list<int64_t> extents, const std::vector<X>& values) {
        rank = int(extents.size()), View::dtype = dtype_of<X>;
        std::copy(extents.begin(), extents.end(), shape.begin());
        int64_t step = 1;
        for (int d = rank - 1; d >= 0; step *= shape[size_t(d)], d--) stride[size_t(d)] = step;
        data = device().allocate(std::max<size_t>(1, values.size() * sizeof(X)));
        device().upload(data, values.data(), values.size() * sizeof(X));
    }
    ~OnDevice() { device().release(data); }
    OnDevice(const OnDevice&) = delete;
    In in() const { return {*this}; }
    Out out() const { return {*this}; }
    template <class X> std::vector<X> read() const {
        std::vector<X> v(static_cast<size_t>(numel()));
        device().download(v.data(), data, v.size() * sizeof(X));
        return v;
    }
};

struct Workspace {
    std::byte* data;
    explicit Workspace(int64_t bytes) : data(device().allocate(size_t(std::max<int64_t>(bytes, 1)))) {
        device().workspace(data, bytes);
    }
    ~Workspace() { device().workspace(nullptr, 0), device().release(data); }
};

template <class X> std::vector<X> numbers(int64_t n, uint64_t key, double scale = 1) {
    Random random(key, "cuda attention test");
    std::vector<X> v(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; i++) v[size_t(i)] = X(float(scale * random.normal(uint64_t(i))));
    return v;
}

/// One sequence of S tokens.
template <class X> struct Sample {
    int64_t S, H, G, D;
    AttentionOptions o;
    std::vector<X> q = numbers<X>(S * H * D, 1, 2), k = numbers<X>(S * G * D, 2),
                   v = numbers<X>(S * G * D, 3), sinks = numbers<X>(H, 4);

    std::vector<X> rows(const std::vector<X>& from, int64_t begin, int64_t end) const {
        return {from.begin() + begin * H * D, from.begin() + end * H * D};
    }
    std::vector<X> trained() const {
        OnDevice dq({S, H, D}, q), dk({S, G, D}, k), dv({S, G, D}, v), dsinks({H}, sinks);
        OnDevice y({S, H, D}, q), lse({S, H}, std::vector<float>(size_t(S * H)));
        OnDevice starts({2}, std::vector<int32_t>{0, int32_t(S)});
        attention_forward.cuda(y.out(), lse.out(), dq.in(), dk.in(), dv.in(), starts.in(), dsinks.in(), o,
                               true);
        return y.template read<X>();
    }
    /// Tokens [begin, end) of each piece, all served by one launch from one cache whose pages are shuffled.
    std::vector<std::vector<X>> served(const std::vector<std::pair<int64_t, int64_t>>& pieces) const {
        int64_t pages = (S + PAGE - 1) / PAGE, N = int64_t(pieces.size()), T = 0;
        auto page = [&](int64_t b) { return (b * 7 + 3) % (pages + 1); };
        while (std::gcd<int64_t>(7, pages + 1) != 1) pages++;
        std::vector<X> kc(size_t((pages + 1) * PAGE * G * D), X(50.f)), vc = kc, queries;
        for (int64_t j = 0; j < S; j++) {
            int64_t row = page(j / PAGE) * PAGE + j % PAGE;
            std::copy_n(k.begin() + j * G * D, G * D, kc.begin() + row * G * D);
            std::copy_n(v.begin() + j * G * D, G * D, vc.begin() + row * G * D);
        }
        std::vector<int32_t> table, starts{0}, lengths;
        for (auto [begin, end] : pieces) {
            for (int64_t b = 0; b < pages; b++) table.push_back(b * PAGE < end ? int32_t(page(b)) : -1);
            std::vector<X> piece = rows(q, begin, end);
            queries.insert(queries.end(), piece.begin(), piece.end());
            T += end - begin, starts.push_back(int32_t(T)), lengths.push_back(int32_t(end));
        }
        OnDevice dq({T, H, D}, queries), y({T, H, D}, queries), dsinks({H}, sinks);
        OnDevice dk({(pages + 1) * PAGE, G, D}, kc), dv({(pages + 1) * PAGE, G, D}, vc);
        OnDevice dtable({N, pages}, table), dstarts({N + 1}, starts), dlengths({N}, lengths);
        Workspace workspace(attention_paged_forward.cuda_workspace(y.out(), dq.in(), dk.in(), dv.in(),
                                                                   dtable.in(), dstarts.in(), dlengths.in(),
                                                                   dsinks.in(), o, true));
        attention_paged_forward.cuda(y.out(), dq.in(), dk.in(), dv.in(), dtable.in(), dstarts.in(),
                                     dlengths.in(), dsinks.in(), o, true);
        std::vector<X> all = y.template read<X>();
        std::vector<std::vector<X>> result;
        for (size_t n = 0; n < pieces.size(); n++) result.push_back(rows(all, starts[n], starts[n + 1]));
        return result;
    }
};

template <class X> bool same_bits(const std::vector<X>& a, const std::vector<X>& b) {
    return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(X));
}

template <class X> void expect_same_bits(const Sample<X>& s) {
    int64_t S = s.S, from = S - 40; // 40 tokens of 2 heads: walks over the segments; up to 8 tokens: split
    auto chunk = s.served({{from, S}})[0];
    std::vector<std::pair<int64_t, int64_t>> pieces = {{S - 1, S}, {from, from + 1},      {S - 20, S - 12},
                                                       {from, S},  {from + 3, from + 17}, {5, 6}};
    auto mixed = s.served(pieces);
    for (size_t n = 0; n + 1 < pieces.size(); n++) {
        auto [begin, end] = pieces[n];
        auto expected = s.rows(s.q, 0, end - begin);
        std::copy_n(chunk.begin() + (begin - from) * s.H * s.D, expected.size(), expected.begin());
        EXPECT_TRUE(same_bits(mixed[n], expected)) << "tokens " << begin << " to " << end;
    }
    auto early = s.served({{0, 90}})[0], trained = s.trained();
    EXPECT_TRUE(same_bits(mixed.back(), s.rows(early, 5, 6)));
    EXPECT_TRUE(same_bits(early, s.rows(trained, 0, 90))) << "prefill against training";
    double off = 0, norm = 0;
    for (size_t i = 0; i < chunk.size(); i++) {
        double a = double(float(chunk[i])), b = double(float(trained[size_t(from * s.H * s.D) + i]));
        off += (a - b) * (a - b), norm += b * b;
    }
    EXPECT_LT(std::sqrt(off / norm), sizeof(X) == 2 ? 4e-3 : 1e-6) << "several segments against training";
}

} // namespace

TEST(CudaAttention, ServedRowsHaveOneSetOfBits) {
    expect_same_bits<bf16>({560, 2, 1, 64, {}});
    expect_same_bits<float>({560, 2, 1, 64, {}});
}
TEST(CudaAttention, ServedRowsHaveOneSetOfBitsWithAWindow) {
    expect_same_bits<bf16>({620, 2, 1, 96, {.window = 300, .softcap = 20}});
}
