// A persistent pool of threads and the one loop that uses it.
//
// Results must not depend on the number of threads: a body computes each index on its own, or writes to a
// slot of its own that is summed afterwards in index order. Workers spin for some 20 us, then sleep: machines
// are shared.
#pragma once
#include <cstdint>
#include <type_traits>

namespace nvl {

/// Number of threads that parallel_for uses (default: the cores this process may run on).
int threads();
void set_threads(int n);

/// Runs body(thread, begin, end) over [0, n) in contiguous chunks of at least `grain`. Nested calls, and
/// calls while another thread is in a loop, run on the caller alone. The first exception is thrown again
/// here.
void parallel_ranges(int64_t n, int64_t grain, void (*body)(void*, int, int64_t, int64_t), void* context);

/// parallel_for(rows, grain, [&](int64_t begin, int64_t end) { ... }), or with a leading thread number.
template <class F> void parallel_for(int64_t n, int64_t grain, F&& body) {
    auto call = [](void* f, int thread, int64_t begin, int64_t end) {
        auto& g = *static_cast<std::remove_reference_t<F>*>(f);
        if constexpr (std::is_invocable_v<F&, int, int64_t, int64_t>)
            g(thread, begin, end);
        else
            g(begin, end);
    };
    parallel_ranges(n, grain, call, const_cast<void*>(static_cast<const void*>(&body)));
}

} // namespace nvl
