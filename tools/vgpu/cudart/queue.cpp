#include "tools/vgpu/cudart/queue.h"

#include <algorithm>

#include "tools/vgpu/machine/module.h"

namespace vgpu::cuda {

namespace {
constexpr size_t LONGEST = 4096; // pending ops; beyond it some run early, which is allowed and saves memory

uint64_t mix(uint64_t x) { // splitmix64
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}
} // namespace

void Queue::seed(uint64_t seed) {
    seeded_ = seed != 0;
    state_ = mix(seed);
    turn_ = 0;
    eager_ = seeded_ && draw() % 4 == 0;        // ops run as soon as they may
    others_first_ = seeded_ && draw() % 2 == 0; // what is waited for runs last
}

uint64_t Queue::draw() { return mix(state_++); }

OpRef Queue::submit(Work work, uint32_t lane, std::vector<OpRef> after) {
    auto op = std::make_shared<Op>();
    op->work = std::move(work);
    op->number = ++submitted_;
    op->lane = lane;
    for (OpRef& before : after) {
        if (!before || before->done) continue;
        if (std::find(op->after.begin(), op->after.end(), before) != op->after.end()) continue;
        before->before.push_back(op);
        op->after.push_back(std::move(before));
        op->waits++;
    }
    pending_.push_back(op);
    if (op->waits == 0) ready_.push_back(op);
    changed_.notify_all();
    if (eager_)
        while (draw() % 8 != 0 && step()) {
        }
    while (pending_.size() > LONGEST && step()) {
    }
    return op;
}

// Strict priorities that change now and then: one stream gets everything, another starves. A uniformly random
// choice finds far fewer bugs (2 of 100 schedules for one missing event).
uint64_t Queue::priority(const Op& op) const {
    return mix(state_ ^ op.lane * 0x9e3779b97f4a7c15 ^ (turn_ / 64) << 32);
}

OpRef Queue::pick(bool only_wanted) {
    OpRef best;
    uint64_t best_key = 0;
    for (const OpRef& op : ready_) {
        if (only_wanted && !op->wanted) continue;
        if (op->work.ready && !op->work.ready()) continue;
        uint64_t key = seeded_ ? priority(*op) : ~op->number;
        if (best && (key < best_key || (key == best_key && op->number > best->number))) continue;
        best = op, best_key = key;
    }
    return best;
}

void Queue::run(const OpRef& op) {
    ready_.erase(std::find(ready_.begin(), ready_.end(), op));
    pending_.erase(std::find(pending_.begin(), pending_.end(), op));
    turn_++;
    try {
        if (before_run) before_run(*op);
        if (op->work.run) op->work.run(*op);
        if (after_run) after_run(*op);
    } catch (const std::exception& e) {
        failed(*op, e.what());
    }
    op->done = true;
    op->finished = std::chrono::steady_clock::now();
    op->work = {};
    op->after.clear();
    for (auto& later : op->before)
        if (OpRef next = later.lock(); next && --next->waits == 0) ready_.push_back(next);
    op->before.clear();
    waiting_.clear(); // whoever still waits will say so again
    changed_.notify_all();
}

bool Queue::step() {
    OpRef op = pick(false);
    if (op) run(op);
    return op != nullptr;
}

bool Queue::nobody_else() const {
    return ranks_.empty() || std::includes(waiting_.begin(), waiting_.end(), ranks_.begin(), ranks_.end());
}

std::string Queue::stuck() const {
    std::string text;
    for (const OpRef& op : ready_)
        if (op->work.ready && text.size() < 400)
            text += (text.empty() ? "" : "; ") + op->work.what + " (device " +
                    std::to_string(op->work.device) + ")";
    return text.empty() ? "nothing" : text;
}

void Queue::wait(const std::vector<OpRef>& ops) {
    auto finished = [&] {
        return std::all_of(ops.begin(), ops.end(), [](auto& op) { return !op || op->done; });
    };
    for (const OpRef& op : pending_) op->wanted = false;
    std::vector<OpRef> open(ops);
    while (!open.empty()) {
        OpRef op = std::move(open.back());
        open.pop_back();
        if (!op || op->done || op->wanted) continue;
        op->wanted = true;
        open.insert(open.end(), op->after.begin(), op->after.end());
    }
    auto last = std::chrono::steady_clock::now();
    while (!finished()) {
        OpRef op = pick(!others_first_);
        if (!op) op = pick(false);
        if (op) {
            run(op);
            last = std::chrono::steady_clock::now();
            continue;
        }
        // Only a collective that other ranks have not called yet can be in the way.
        waiting_.insert(std::this_thread::get_id());
        bool hopeless = nobody_else();
        if (!hopeless)
            changed_.wait_for(mutex, std::chrono::milliseconds(200));
        else
            changed_.notify_all();
        waiting_.erase(std::this_thread::get_id());
        std::chrono::duration<double> waited = std::chrono::steady_clock::now() - last;
        if (hopeless || waited.count() > patience) {
            std::string text = "waits for ever, for ranks that have not called: " + stuck();
            drop();
            throw Deadlock(text);
        }
    }
    if (std::any_of(ops.begin(), ops.end(), [](auto& op) { return op && op->dropped; }))
        throw Deadlock("the program hangs: what this waits for was dropped");
}

// Nobody gets a result any more, but later work is not held up.
void Queue::drop() {
    for (const OpRef& op : pending_) op->done = op->dropped = true, op->after.clear();
    clear();
    changed_.notify_all();
}

void Queue::wait_for_others(const std::function<bool()>& happened, const std::string& what) {
    changed_.notify_all();
    auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience);
    while (!happened())
        if (changed_.wait_until(mutex, until) == std::cv_status::timeout && !happened()) throw Deadlock(what);
}

void Queue::wait_all() { wait(std::vector<OpRef>(pending_)); }

void Queue::rank_thread(bool is_one) {
    if (is_one)
        ranks_.insert(std::this_thread::get_id());
    else
        ranks_.erase(std::this_thread::get_id());
    changed_.notify_all();
}

} // namespace vgpu::cuda
