// Tape: ops record steps; each op leaves a closure which records its backward. A step keeps its tensors as
// data, apart from the code it calls, so that passes can reorder, drop, copy and rewire steps without knowing
// any op.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "engine/tape/kernel.h"
#include "engine/tensor/tensor.h"

namespace nvl {

enum class Add : uint8_t {
    no,
    yes,
    after_first
}; // after_first: write in the first micro-batch, add in the others
enum class Phase : uint8_t { forward, recompute, backward, update };
/// Run the kernel on a device, or only count what it would do (workspace: bytes of scratch on a GPU).
enum class Call : uint8_t { cpu, cuda, flops, bytes, workspace };

struct Into {
    Tensor x;
}; // "the gradient of x"; resolved in parameter order when the step is recorded

struct Argument {
    Use use;
    Tensor tensor; // an unwanted gradient has no buffer
    Add add = Add::no;
    bool sum = false; // an AccSum
};

struct Step {
    const char* kernel;
    std::string path; // where in the model
    Phase phase;
    int segment = 0; // segments of a program run separately: forward | backward | weight gradients
    Traits traits;
    std::vector<Argument> args; // in parameter order
    std::function<double(const View*, Call)> call;
};
inline bool writes(Use u) { return u != Use::in; }
inline bool reads(const Argument& a) {
    return a.use == Use::in || a.use == Use::inout || (a.use == Use::acc && a.add != Add::no);
}

class Tape {
public:
    enum Mode { planned, eager }; // eager: execute at once in memory of its own (tests, debugging, teaching)
    explicit Tape(Mode mode = planned, const Mesh* mesh = nullptr) : mesh_(mesh), eager_(mode == eager) {}
    Tape(const Tape&) = delete;

    // --- for models and ops
    // ---------------------------------------------------------------------------------------
    /// Declares a dimension whose true extent (<= n) is given at each run.
    Dim capacity(int64_t n);
    Tensor tensor(const char* name, Shape, Dtype, Types = {});
    /// A tensor that is filled before the program runs.
    Tensor input(const char* name, Shape, Dtype, Types = {});
    /// Keeps x readable after the program ran.
    Tensor keep(Tensor x) {
        x.buffer->keep = true;
        return x;
    }
    /// Same memory, separate gradient; `detach` without one.
    Tensor alias(Tensor x);
    Tensor detach(Tensor x) {
        x = alias(x);
        x.buffer->needs_grad = false;
        return x;
    }
    /// Records one step. A parameter In/Out/InOut takes a Tensor, an Acc/AccSum takes into(x), others take
    /// plain values.
    template <class... P, class... A> void run(const Kernel<void(P...)>& k, A... a);
    /// The handle to use after an InOut wrote x; older handles are refused from then on.
    Tensor written(Tensor x) {
        x.version = versions_[x.buffer];
        return x;
    }
    /// Calls f when the backward pass reaches this op, if any of the outputs has a gradient by then.
    template <class F> void on_backward(std::vector<Tensor> outputs, F f) {
        if (gradients_wanted_) closures_.push_back({std::move(outputs), std::move(f), module_path()});
    }
    /// As an Acc: a contribution to the gradient of x; empty if x needs none.
    Into into(const Tensor& x) { return {x}; }
    /// The complete gradient of y (zeros if nothing contributed).
    Tensor grad(const Tensor& y);
    bool has_grad(const Tensor& y) const { return gradients_.count(y.buffer); }
    /// Starts the backward pass: dy (or ones) is the gradient of y.
    void seed(const Tensor& y, const Tensor& dy);
    /// Records the backward of everything recorded so far. Parameters that got no gradient are set to zero.
    void backward(const std::vector<Tensor>& parameters = {});
    void no_grad() { gradients_wanted_ = false; }
    bool wants_gradients() const { return gradients_wanted_; }
    void segment(int s) { segment_ = s; }
    void phase(Phase p) { phase_ = p; }
    /// Names a random stream; a recomputed region sees the same names again.
    uint64_t site() { return sites_++; }
    int size(Axis a) const { return mesh_ ? mesh_->size[a] : 1; }

    /// Records function(arguments...), which returns one tensor or several, again in the backward pass
    /// instead of keeping what it computed. As for std::thread the arguments are copied and captures are
    /// refused: the call comes back when the caller's locals are gone.
    template <class F, class... A> auto checkpoint(F function, A... arguments) {
        static_assert(std::is_empty_v<F> || std::is_pointer_v<F>,
                      "checkpoint: pass what the region needs as arguments, not as captures");
        if constexpr (std::is_same_v<decltype(function(arguments...)), Tensor>)
            return checkpoint_region([=] { return std::vector{function(arguments...)}; })[0];
        else
            return checkpoint_region([=] { return function(arguments...); });
    }

    // --- for passes and plans
    // ---------------------------------------------------------------------------------------
    std::vector<Step> steps;
    Buffer* clone(Buffer*); // a fresh buffer like this one
    const std::deque<Buffer>& buffers() const { return buffers_; }
    const std::vector<int64_t>& capacities() const { return capacity_; }

    /// The tape that records on this thread; an error if there is none.
    static Tape& current();

private:
    struct Closure {
        std::vector<Tensor> outputs;
        std::function<void()> record;
        std::string path; // where the forward was recorded: its backward belongs there too
    };
    struct Gradient {
        Tensor base;                 // same shape as the buffer, so every view of x has its view of dx
        std::vector<Layout> written; // disjoint regions that hold a first contribution
        int64_t elements = 0;        // in them
        size_t first_step = 0;
        bool zero_first = false, complete = false, read = false;
    };
    struct Repeated {
        Tensor x, temporary; // the temporary holds a contribution to the gradient of x
    };
    std::vector<Tensor> checkpoint_region(std::function<std::vector<Tensor>()> region);
    Gradient& gradient(const Tensor& x);
    Argument contribution(const Tensor& x);
    void require_zero(Gradient&);
    void record(Step);
    std::vector<Repeated> resolve_gradients(Step&);
    void check_arguments(const Step&) const;
    void unwind(size_t mark);

    template <class P, class A> static void add_argument(Step& s, const A& a) {
        if constexpr (is_view<P>) {
            if constexpr (std::is_same_v<A, Into>) {
                static_assert(use_of<P> == Use::acc, "into(x) is for Acc and AccSum parameters");
                s.args.push_back({Use::acc, a.x, Add::no, std::is_same_v<P, AccSum>});
            } else {
                static_assert(use_of<P> != Use::acc, "an Acc takes into(x)");
                s.args.push_back({use_of<P>, a});
            }
        }
    }
    template <class P, class A> static auto value(const A& a) {
        if constexpr (is_view<P>)
            return std::monostate{};
        else
            return P(a);
    }
    /// What a step calls: one of the kernel's functions, with its views and plain values.
    template <class... P, class Values>
    static std::function<double(const View*, Call)> caller(const Kernel<void(P...)>& k, Values values);
    template <class P, class V> static P bind(const View* v, int i, const V& value) {
        if constexpr (is_view<P>) {
            P p;
            static_cast<View&>(p) = v[i];
            return p;
        } else
            return value;
    }

    const Mesh* mesh_;
    bool eager_, gradients_wanted_ = true;
    int segment_ = 0;
    uint64_t sites_ = 0;
    Phase phase_ = Phase::forward;
    std::deque<Buffer> buffers_;
    std::vector<Memory> eager_memory_;
    std::vector<int64_t> capacity_;
    std::vector<Closure> closures_;
    std::unordered_map<const Buffer*, Gradient> gradients_;
    std::unordered_map<const Buffer*, uint32_t> versions_;
};

/// The recording tape is a property of the thread, so weights need not know any tape.
struct Recording {
    explicit Recording(Tape& t) : before(std::exchange(active, &t)) {}
    ~Recording() { active = before; }
    Recording(const Recording&) = delete;
    static inline thread_local Tape* active = nullptr;
    Tape* before;
};
inline Tape& tape() { return Tape::current(); }

/// d = 0 and d += s (or d = s for a first contribution): what autograd itself needs.
extern Kernel<void(Acc d)> zero;
extern Kernel<void(Acc d, In s)> accumulate;
/// d = v or d += v: how a backward pass starts where no cotangent is given.
extern Kernel<void(Acc d, double v)> fill_with;

/// The view of a tensor at full capacity, `data` being the start of its buffer.
View view_of(const Tensor& t, std::byte* data);
/// Each argument once, twice for what is read and written: the default count of bytes moved.
double bytes_of(const View* views, const std::vector<Argument>& args);

template <class... P, class Values>
std::function<double(const View*, Call)> Tape::caller(const Kernel<void(P...)>& k, Values values) {
    return [&k, values = std::move(values)](const View* v, Call what) {
        return [&]<size_t... I>(std::index_sequence<I...>)->double {
            auto call = [&](auto* f) { return f(bind<P>(v, k.view_index[I], std::get<I>(values))...); };
            switch (what) {
            case Call::flops: return k.flops ? call(k.flops) : 0;
            case Call::bytes: return k.moved ? call(k.moved) : -1;
            case Call::workspace: return k.cuda_workspace ? double(call(k.cuda_workspace)) : 0;
            case Call::cpu:
                if (!k.cpu) fail("%s: no cpu implementation in this build", k.name);
                call(k.cpu);
                return 0;
            case Call::cuda:
                if (!k.cuda) fail("%s: no cuda implementation in this build; use --device cpu", k.name);
                call(k.cuda);
                return 0;
            }
            return 0;
        }
        (std::index_sequence_for<P...>{});
    };
}

template <class... P, class... A> void Tape::run(const Kernel<void(P...)>& k, A... a) {
    static_assert(sizeof...(P) == sizeof...(A), "wrong number of arguments for this kernel");
    Step s{k.name, module_path(), phase_, segment_, k.traits, {}, {}};
    (add_argument<P>(s, a), ...);
    s.call = caller(k, std::tuple{value<P>(a)...});
    record(std::move(s));
}

} // namespace nvl
