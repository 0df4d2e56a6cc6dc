// Streams as they are at the worst: work waits here until something needs it, and then runs in an order that
// the program allowed, chosen by the seed to hurt. Edges (stream order, events, the legacy stream, graphs)
// are explicit, so "allowed" is: every op that this one comes after has run.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tools/vgpu/machine/module.h"

namespace vgpu::cuda {

struct Op;
using OpRef = std::shared_ptr<Op>;

enum class WorkKind : uint8_t { empty, kernel, copy, set, host, library };

struct Range {
    uint64_t address, bytes;
    bool write;
};

/// What an op does. Graph nodes keep one, and every launch of the graph makes an op of it.
struct Work {
    WorkKind kind = WorkKind::empty;
    std::string what; // "kernel gemm", for messages
    int device = 0;
    std::function<void(Op&)> run; // null: nothing to do
    std::function<bool()> ready;  // may it run now, apart from the edges? null: yes
    std::function<Work()> bind;   // what has to be made anew for each launch of a graph (a collective)
    uint32_t operation = 0;       // its number in Clocks
    std::vector<Range> touches{}; // memory of devices (of kernels, their observer knows)
};

struct Op {
    Work work;
    uint64_t number = 0;      // in order of submission
    uint32_t lane = 0;        // stream, or branch of a graph
    std::vector<OpRef> after; // emptied when it is done
    std::vector<std::weak_ptr<Op>> before;
    int waits = 0; // how many of `after` are not done
    bool done = false, wanted = false, dropped = false;
    std::chrono::steady_clock::time_point finished;
};

/// All members are called with `mutex` held (it is recursive: an op that runs may ask things).
struct Deadlock : Error {
    using Error::Error;
};

class Queue {
public:
    std::recursive_mutex mutex;

    OpRef submit(Work work, uint32_t lane, std::vector<OpRef> after);
    /// Runs until all of these are done. Throws Deadlock when they never will be; then all that is pending is
    /// dropped.
    void wait(const std::vector<OpRef>& ops);
    /// Waits for something that other threads of the host do.
    void wait_for_others(const std::function<bool()>& happened, const std::string& what);
    /// Runs one op if there is one that may run.
    bool step();
    void wait_all();
    void clear() { pending_.clear(), ready_.clear(); }
    /// 0: in order of submission, as late as possible.
    void seed(uint64_t seed);
    /// Told of every op just before it runs (race detection across streams).
    std::function<void(Op&)> before_run;
    std::function<void(Op&)> after_run;
    /// An op threw this.
    std::function<void(Op&, const char* why)> failed;

    /// Threads that own a rank of a communicator: when all of them wait, nothing will ever happen.
    void rank_thread(bool is_one);
    double patience = 60; // seconds to wait for other threads before it counts as a deadlock

private:
    OpRef pick(bool only_wanted);
    void run(const OpRef&);
    uint64_t priority(const Op&) const;
    uint64_t draw();
    bool nobody_else() const;
    std::string stuck() const;
    void drop();

    std::vector<OpRef> pending_; // not done, in order of submission
    std::vector<OpRef> ready_;   // of those: all edges are done
    uint64_t submitted_ = 0, state_ = 0, turn_ = 0;
    bool seeded_ = false, eager_ = false, others_first_ = false;
    std::condition_variable_any changed_;
    std::set<std::thread::id> ranks_, waiting_;
};

} // namespace vgpu::cuda
