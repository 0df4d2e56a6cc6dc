#include "engine/base/parallel.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/base/check.h"

namespace nvl {

namespace {

int available_cores() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1, int(std::thread::hardware_concurrency()));
}

// One loop at a time. A worker waits for `generation` to change: first spinning, then on the condition
// variable.
class Pool {
public:
    explicit Pool(int n) {
        for (int i = 1; i < n; i++) workers_.emplace_back([this, i] { work(i); });
    }
    ~Pool() {
        {
            std::lock_guard lock(mutex_);
            stop_ = true;
            generation_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& w : workers_) w.join();
    }
    int size() const { return int(workers_.size()) + 1; }

    void run(int64_t n, int parts, void (*body)(void*, int, int64_t, int64_t), void* context) {
        n_ = n, parts_ = parts, body_ = body, context_ = context, error_ = nullptr;
        pending_.store(int(workers_.size()), std::memory_order_relaxed);
        {
            std::lock_guard lock(mutex_);
            generation_.fetch_add(1, std::memory_order_release);
        }
        if (sleeping_.load()) wake_.notify_all();
        part(0);
        for (int spin = 0; pending_.load(std::memory_order_acquire); spin++)
            spin < 4000 ? _mm_pause() : std::this_thread::yield();
        if (error_) std::rethrow_exception(error_);
    }

private:
    void part(int i) {
        if (i >= parts_) return;
        int64_t begin = n_ * i / parts_, end = n_ * (i + 1) / parts_;
        try {
            if (begin < end) body_(context_, i, begin, end);
        } catch (...) {
            std::lock_guard lock(mutex_);
            if (!error_) error_ = std::current_exception();
        }
    }
    void work(int i) {
        inside = true;
        for (uint64_t seen = 0;;) {
            for (int spin = 0; spin < 2000 && generation_.load(std::memory_order_acquire) == seen; spin++)
                _mm_pause();
            if (generation_.load(std::memory_order_acquire) == seen) {
                std::unique_lock lock(mutex_);
                sleeping_.fetch_add(1);
                wake_.wait(lock, [&] { return generation_.load() != seen; });
                sleeping_.fetch_sub(1);
            }
            seen++;
            if (stop_) return;
            part(i);
            pending_.fetch_sub(1, std::memory_order_release);
        }
    }
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> generation_{0};
    std::atomic<int> pending_{0}, sleeping_{0};
    bool stop_ = false;
    int64_t n_ = 0;
    int parts_ = 0;
    void (*body_)(void*, int, int64_t, int64_t) = nullptr;
    void* context_ = nullptr;
    std::exception_ptr error_;

public:
    static inline thread_local bool inside = false; // this thread is already in a loop
};

std::mutex pool_in_use;
std::unique_ptr<Pool> pool;
int wanted = 0;

} // namespace

int threads() { return wanted ? wanted : wanted = available_cores(); }

void set_threads(int n) {
    check(n >= 1 && n <= 4096, "threads: expected 1 to 4096, found %d", n);
    std::lock_guard lock(pool_in_use);
    wanted = n;
    pool.reset();
}

void parallel_ranges(int64_t n, int64_t grain, void (*body)(void*, int, int64_t, int64_t), void* context) {
    if (n <= 0) return;
    int64_t parts = std::min<int64_t>(threads(), (n + grain - 1) / std::max<int64_t>(1, grain));
    if (parts <= 1 || Pool::inside) return body(context, 0, 0, n);
    std::unique_lock lock(pool_in_use, std::try_to_lock);
    if (!lock) return body(context, 0, 0, n);
    if (!pool) pool = std::make_unique<Pool>(threads());
    struct Inside {
        Inside() { Pool::inside = true; }
        ~Inside() { Pool::inside = false; }
    } inside;
    pool->run(n, int(parts), body, context);
}

} // namespace nvl
