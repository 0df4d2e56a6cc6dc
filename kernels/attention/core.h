// What the kernels of attention share: one sequence as one key/value head sees it, and the mask.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "engine/base/memory.h"
#include "engine/base/parallel.h"
#include "engine/tensor/view.h"
#include "kernels/attention/attention.h"

namespace nvl::attend {

constexpr int64_t BLOCK = 64;     // keys whose probabilities are summed before y is rescaled; a cache page
constexpr int64_t SEGMENT = 1024; // keys summed on their own, so that long contexts may be split over threads

struct Mask {
    bool causal;
    int64_t window;
    /// Keys [first, last) that query i of a sequence of `length` keys sees.
    int64_t first(int64_t i) const { return window ? std::max<int64_t>(0, i - window + 1) : 0; }
    int64_t last(int64_t i, int64_t length) const {
        return causal ? i + 1 : window ? std::min(length, i + window) : length;
    }
};

/// Element (row, head, c) of a tensor (rows, heads, cols) is data[row * row_step + head * head_step + c].
template <class X> struct Heads {
    X* data = nullptr;
    int64_t row_step = 0, head_step = 0;
    Heads() = default;
    explicit Heads(const View& v)
        : data(v ? v.as<std::remove_const_t<X>>() : nullptr), row_step(v.stride[0]), head_step(v.stride[1]) {}
    X* at(int64_t row, int64_t head) const { return data + row * row_step + head * head_step; }
};

/// Queries [0, queries) of one sequence, which are its tokens first, first + 1, ..., and the keys [0, keys)
/// that one key/value head g offers them. Query rows are numbered with the heads of the group innermost:
/// row r is query r / group of head g * group + r % group.
template <class X> struct Sequence {
    using A = sum_t<X>;
    Heads<const X> q, k, v;
    int64_t D, Dv, group;
    Mask mask;
    double scale, softcap;
    const X* sinks = nullptr;     // (H), or none
    int64_t row = 0, queries = 0; // first row in q, number of queries
    int64_t first = 0;            // token that the first query is
    int64_t keys = 0, key_row = 0;
    const int32_t* pages =
        nullptr; // block b of keys lies in rows pages[b] * BLOCK ...; null: key_row + b * BLOCK
    int64_t g = 0;

    Sequence(In q_, In k_, In v_, const View& sinks_, const AttentionOptions& o)
        : q(q_), k(k_), v(v_), D(q_.dim(2)), Dv(v_.dim(2)),
          group(q_.dim(1) / k_.dim(1)), mask{o.causal, o.window},
          scale(o.scale ? o.scale : 1 / std::sqrt(double(D))), softcap(o.softcap),
          sinks(sinks_ ? sinks_.as<X>() : nullptr) {}
    int64_t rows() const { return queries * group; }
    int64_t token(int64_t r) const { return first + r / group; }
    int64_t row_in_q(int64_t r) const { return row + r / group; }
    int64_t head(int64_t r) const { return g * group + r % group; }
    int64_t key_rows(int64_t block) const { return pages ? pages[block] * BLOCK : key_row + block * BLOCK; }
    int64_t first_key(int64_t r) const { return mask.first(token(r)); }
    int64_t last_key(int64_t r) const { return mask.last(token(r), keys); }
};

/// Columns of a block of keys that a row sees.
struct Range {
    int64_t from = BLOCK, to = 0;
    bool empty() const { return from >= to; }
    bool holds(int64_t first, int64_t last) const { return from <= first && last <= to; }
    bool touches(int64_t first, int64_t last) const { return from < last && first < to; }
    void include(const Range& r) {
        if (!r.empty()) from = std::min(from, r.from), to = std::max(to, r.to);
    }
};

/// The keys that each of a task's rows sees: looked up for every block, so divided out once.
struct Visible {
    int32_t *first = nullptr, *last = nullptr;
    template <class X> void fill(const Sequence<X>& s, int64_t begin, int64_t rows) {
        for (int64_t i = 0; i < rows; i++)
            first[i] = int32_t(s.first_key(begin + i)), last[i] = int32_t(s.last_key(begin + i));
    }
    Range in_block(int64_t row, int64_t block) const {
        return {std::clamp<int64_t>(first[row] - block * BLOCK, 0, BLOCK),
                std::clamp<int64_t>(last[row] - block * BLOCK, 0, BLOCK)};
    }
};

/// Pieces of this thread's scratch, each on a cache line of its own.
class Workspace {
public:
    explicit Workspace(size_t floats) : next_(reinterpret_cast<float*>(scratch(floats * 4 + 4096, 7))) {}
    float* take(int64_t n) { return std::exchange(next_, next_ + (n + 15) / 16 * 16); }
    int32_t* take_integers(int64_t n) { return reinterpret_cast<int32_t*>(take(n)); }

private:
    float* next_;
};

/// task(i) for i in [0, n), each taken by whichever thread is free next. Give the long ones first.
template <class F> void run_tasks(int64_t n, bool worth_waking, F task) {
    std::atomic<int64_t> next{0};
    parallel_for(worth_waking ? std::min<int64_t>(n, threads()) : 1, 1, [&](int64_t, int64_t) {
        for (int64_t i; (i = next.fetch_add(1)) < n;) task(i);
    });
}

/// Below some 100 us of arithmetic waking a second thread costs more than it saves.
inline bool worth_waking(double flops) { return flops > 4e6; }

/// Forward of all rows of all sequences; lse may be empty. The heads of a sequence stand side by side in the
/// list.
template <class X> void forward(const std::vector<Sequence<X>>& list, Heads<X> y, Heads<sum_t<X>> lse);

void check_options(const char* op, const AttentionOptions& o);
void check_sinks(const char* op, const Tensor& sinks, const Tensor& q);

template <class X> struct Gradients {
    Heads<const X> dy, y;
    Heads<const sum_t<X>> lse;
    Heads<X> dq, dk, dv; // data null: not wanted
    bool add_q, add_k, add_v;
};
/// Gradients of one whole sequence and one key/value head.
template <class X> void backward(const Sequence<X>& s, const Gradients<X>& g);

} // namespace nvl::attend
