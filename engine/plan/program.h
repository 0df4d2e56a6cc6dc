// Program: the steps of a tape with a place in memory for every buffer. Running it walks the list.
//
// A program runs where its persistent tensors live. On a GPU, runs with the same counts are captured in a
// graph once and then replayed: everything else that changes from run to run is data.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/tape/tape.h"

namespace nvl {

struct Cost {
    double bytes = 0, flops = 0;
    Cost& operator+=(const Cost& c) {
        bytes += c.bytes, flops += c.flops;
        return *this;
    }
    bool operator==(const Cost&) const = default;
};

struct Run {
    int segment = -1;  // -1: all of them in order
    int set = 0;       // activation set: which micro-batch in flight
    bool first = true; // first micro-batch: parameter gradients are written, later ones add to them
    std::vector<int64_t> counts{}; // true size of each capacity dimension; empty: the capacity
    bool poison = false;           // fill every buffer with NaN when its lifetime begins (tests)
    Cost* measured = nullptr;      // adds what the kernels that ran were given: equals the plan
    std::map<std::string, double>* seconds = nullptr;             // adds the time spent in each kernel
    const std::function<void(size_t step)>* after_step = nullptr; // called after each step (NaN hunting)
};

class Program {
public:
    /// Plans the tape's steps; `sets` activation sets may be in flight at once. Takes no memory until it
    /// runs. `device`: for tapes without persistent tensors.
    explicit Program(Tape&, int sets = 1, std::optional<Device> device = std::nullopt);
    void run(const Run& = {});
    /// An input, a kept or a persistent tensor, at full capacity, where the program runs.
    View view(const Tensor&, int set = 0) const;
    /// The same in host memory: on the CPU the tensor itself. Elsewhere an input is a copy that every
    /// run sends to the device, and what steps wrote is a copy of what the last run left there.
    View host_view(const Tensor&, int set = 0) const;
    template <class X> X* data(const Tensor& t, int set = 0) const {
        return host_view(t, set).template row<X>(0);
    }
    Device device() const { return device_; }

    /// What a step, and the whole program, moves and computes at full capacity.
    Cost cost(size_t step, bool first = true) const;
    Cost cost() const;
    /// Steps [from, to) as a table: phase, module, kernel, bytes, FLOPs, tensors with their places.
    std::string listing(size_t from = 0, size_t to = SIZE_MAX) const;
    std::string summary() const; // one line: steps, FLOPs, bytes moved, memory
    const std::vector<Step>& steps() const { return steps_; }
    const std::vector<int64_t>& capacities() const { return capacity_; }

    int64_t scratch_bytes = 0;   // lives inside one segment; one arena, shared by all segments
    int64_t set_bytes = 0;       // inputs, kept tensors and what crosses segments; one arena per set
    int64_t alive_bytes = 0;     // most bytes alive at once in scratch: no placement can beat it
    int64_t unshared_bytes = 0;  // what it would be if no memory were used twice
    int64_t workspace_bytes = 0; // of GPU kernels: the most that one step needs
    /// Bytes of arena memory that this program holds now: 0 before the first run, the planned bytes after it.
    int64_t held_bytes() const;
    int64_t planned_bytes() const {
        return scratch_bytes + set_bytes * int64_t(bindings_.size()) + workspace_bytes;
    }
    double plan_ms = 0;
    int64_t replayed = 0; // runs that were one launch of a graph

private:
    struct Place {
        bool in_set = false;
        int64_t offset = -1;
        int first = INT32_MAX, last = -1;
        int low_segment = INT32_MAX, high_segment = -1;
    };
    struct Graph { // the launches of one kind of run
        int segment;
        bool first;
        std::vector<int64_t> counts;
        std::unique_ptr<DeviceGraph> graph;
    };
    struct Binding {
        std::vector<View> views;
        std::vector<int64_t> counts;
        int first = -1;
        std::vector<Graph> graphs;
        std::vector<int64_t> last; // counts of the last run
    };
    struct Mirror { // in host memory, of a tensor that lives elsewhere
        Memory memory;
        bool fresh = false; // read since the last run
    };
    void find_device(std::optional<Device> device);
    void find_lifetimes();
    void find_workspaces();
    void place(const Tape&);
    void bind(Binding&, const Run&);
    void take_memory();
    std::byte* base(const Buffer* b, int set) const;
    std::vector<View> step_views(size_t step, bool first) const;
    std::string describe(const Argument&) const;
    void poison(size_t step, int set);
    void call(size_t step, const View* views);
    void walk(Binding&, const Run&);
    void run_on_device(Binding&, const Run&);
    void send_inputs(int set);
    void call_on_host(size_t step, const View* views);
    int64_t used_bytes(const Buffer* b, int set) const;

    Device device_ = Device::cpu;
    std::vector<Step> steps_;
    std::vector<size_t> first_view_, segment_begin_;
    std::vector<Place> places_; // by buffer id
    std::vector<int64_t> sizes_, capacity_;
    std::vector<std::vector<int>> begins_; // buffers whose lifetime begins at a step
    std::vector<int64_t> workspaces_;      // of each step
    Memory scratch_, workspace_;
    std::vector<Memory> sets_;
    std::vector<Binding> bindings_;
    mutable std::map<std::pair<int, const Buffer*>, Mirror> mirrors_; // by set
};

/// Offsets such that items alive at the same time do not overlap. Largest first, lowest gap. Returns the
/// peak.
struct Item {
    int64_t bytes;
    int first, last;
    int64_t offset = -1;
};
int64_t pack(std::vector<Item>& items);

} // namespace nvl
