#include "engine/plan/program.h"

#include <algorithm>
#include <cstring>

#include "engine/base/clock.h"

namespace nvl {

Program::Program(Tape& tape, int sets, std::optional<Device> device)
    : steps_(tape.steps), capacity_(tape.capacities()), bindings_(size_t(sets)) {
    double start = seconds_now();
    places_.resize(tape.buffers().size()), sizes_.resize(places_.size()), begins_.resize(steps_.size());
    find_device(device);
    find_lifetimes();
    find_workspaces();
    place(tape);
    plan_ms = (seconds_now() - start) * 1e3;
}

void Program::find_device(std::optional<Device> device) {
    const Tensor* first = nullptr;
    for (const Step& s : steps_)
        for (const Argument& a : s.args) {
            if (!a.tensor || a.tensor.buffer->tape) continue;
            Device d = a.tensor.buffer->device;
            check(!device || d == *device, "plan: %s lives on %s, %s on %s; one program runs on one device",
                  a.tensor.name(), name_of(d), first ? first->name() : "the program",
                  name_of(device.value_or(d)));
            if (!first) device = d, first = &a.tensor;
        }
    device_ = device.value_or(Device::cpu);
}

void Program::find_lifetimes() {
    size_t views = 0;
    for (size_t i = 0; i < steps_.size(); i++) {
        const Step& s = steps_[i];
        check(i == 0 || steps_[i - 1].segment <= s.segment, "plan: segments are not in order");
        while (int(segment_begin_.size()) <= s.segment) segment_begin_.push_back(i);
        first_view_.push_back(views), views += s.args.size();
        for (const Argument& a : s.args) {
            if (!a.tensor || !a.tensor.buffer->tape) continue;
            Place& p = places_[size_t(a.tensor.buffer->id)];
            check(p.last >= 0 || a.tensor.buffer->input || a.use != Use::in,
                  "%s reads %s, which no step has written", s.kernel, a.tensor.name());
            p.first = std::min(p.first, int(i)), p.last = int(i);
            p.low_segment = std::min(p.low_segment, s.segment),
            p.high_segment = std::max(p.high_segment, s.segment);
        }
    }
    segment_begin_.push_back(steps_.size());
}

void Program::place(const Tape& tape) {
    size_t segments = segment_begin_.size() - 1;
    std::vector<std::vector<Item>> items(segments + 1); // per segment, and the set
    std::vector<std::vector<size_t>> ids(segments + 1);
    for (const Buffer& b : tape.buffers()) {
        Place& p = places_[size_t(b.id)];
        sizes_[size_t(b.id)] = b.bytes();
        if (p.last < 0 && !b.input) continue; // an alias, or nothing uses it any more
        if (!b.input) begins_[size_t(p.first)].push_back(b.id);
        p.in_set = b.input || b.keep || p.low_segment != p.high_segment;
        if (b.input) p.first = -1;
        if (b.keep || b.input) p.last = int(steps_.size()); // an input may be filled once and run many times
        size_t where = p.in_set ? segments : size_t(p.low_segment);
        int64_t align = device_ == Device::cpu ? 64 : 256;
        items[where].push_back({(b.bytes() + align - 1) / align * align, p.first, p.last});
        ids[where].push_back(size_t(b.id));
        unshared_bytes += b.bytes();
    }
    std::vector<int64_t> change(steps_.size() + 1);
    for (size_t k = 0; k <= segments; k++) {
        int64_t& peak = k == segments ? set_bytes : scratch_bytes;
        peak = std::max(peak, pack(items[k]));
        for (size_t i = 0; i < items[k].size(); i++) {
            const Item& x = items[k][i];
            places_[ids[k][i]].offset = x.offset;
            if (k < segments) change[size_t(x.first)] += x.bytes, change[size_t(x.last) + 1] -= x.bytes;
        }
    }
    int64_t alive = 0;
    for (int64_t c : change) alive += c, alive_bytes = std::max(alive_bytes, alive);
}

void Program::take_memory() {
    if (!sets_.empty()) return;
    size_t more = device_ == Device::cpu; // one byte, so that an empty arena has an address
    scratch_ = Memory(size_t(scratch_bytes) + more, device_, "the scratch memory of a program");
    if (device_ != Device::cpu)
        workspace_ = Memory(size_t(workspace_bytes), device_, "the workspace of a program");
    for (size_t i = 0; i < bindings_.size(); i++)
        sets_.emplace_back(size_t(set_bytes) + more, device_, "the activations of a program");
}
int64_t Program::held_bytes() const {
    if (sets_.empty()) return 0;
    int64_t more = device_ == Device::cpu, n = int64_t(scratch_.bytes() + workspace_.bytes()) - more;
    for (auto& s : sets_) n += int64_t(s.bytes()) - more;
    return n;
}

std::byte* Program::base(const Buffer* b, int set) const {
    if (!b->tape) return b->data;
    const Place& p = places_[size_t(b->id)];
    check(p.offset >= 0, "%s is not part of this program", b->name.c_str());
    return (p.in_set ? sets_.at(size_t(set)).data() : scratch_.data()) + p.offset;
}

View Program::view(const Tensor& t, int set) const {
    const_cast<Program*>(this)->take_memory(); // at the first touch, so that a plan alone costs none
    return view_of(t, t ? base(t.buffer->storage ? t.buffer->storage : t.buffer, set) : nullptr);
}

static int64_t scaled(Dim d, const std::vector<int64_t>& counts, const std::vector<int64_t>& capacity) {
    size_t k = d.symbol;
    if (!k || counts.empty()) return d.size;
    int64_t n = d.size * counts[k - 1];
    return n % capacity[k - 1] ? -1 : n / capacity[k - 1];
}

void Program::bind(Binding& b, const Run& r) {
    int set = int(&b - bindings_.data());
    check(r.counts.empty() || r.counts.size() == capacity_.size(),
          "run: %zu counts for %zu capacity dimensions", r.counts.size(), capacity_.size());
    for (size_t i = 0; i < r.counts.size(); i++)
        check(0 <= r.counts[i] && r.counts[i] <= capacity_[i], "run: count %ld exceeds the capacity %ld",
              r.counts[i], capacity_[i]);
    b.views.clear();
    for (const Step& s : steps_)
        for (const Argument& a : s.args) {
            View v = view(a.tensor, set);
            v.add = a.add == Add::yes || (a.add == Add::after_first && !r.first);
            for (size_t d = 0; d < size_t(v.rank); d++) {
                v.shape[d] = scaled(a.tensor.layout.shape.dims[d], r.counts, capacity_);
                check(v.shape[d] >= 0, "run: the counts of a run do not divide %s of %s",
                      a.tensor.shape().text().c_str(), s.kernel);
            }
            b.views.push_back(v);
        }
    b.counts = r.counts, b.first = r.first;
}

void Program::poison(size_t step, int set) {
    for (int id : begins_[step]) {
        const Place& p = places_[size_t(id)];
        std::byte* arena = p.in_set ? sets_[size_t(set)].data() : scratch_.data();
        auto bytes = size_t(sizes_[size_t(id)]);
        if (device_ == Device::cpu)
            std::memset(arena + p.offset, 0xff, bytes);
        else
            backend_of(device_).fill(arena + p.offset, 0xff, bytes);
    }
}

static Cost cost_of(const Step& s, const View* v) {
    double moved = s.call(v, Call::bytes);
    return {moved >= 0 ? moved : bytes_of(v, s.args), s.call(v, Call::flops)};
}

void Program::run(const Run& r) {
    take_memory();
    Binding& b = bindings_.at(size_t(r.set));
    b.last = r.counts;
    device_ == Device::cpu ? walk(b, r) : run_on_device(b, r);
}

// A grid of no blocks cannot be launched: steps that write no element are left out.
static bool writes_something(const Step& s, const View* views) {
    bool any = s.traits.effect;
    for (size_t i = 0; i < s.args.size(); i++) any |= writes(s.args[i].use) && views[i].bytes() > 0;
    return any;
}

// One step on the CPU or as a launch; an error says where in the model it is.
void Program::call(size_t step, const View* views) {
    const Step& s = steps_[step];
    try {
        if (device_ == Device::cpu)
            s.call(views, Call::cpu);
        else if (s.traits.on_host)
            call_on_host(step, views);
        else if (writes_something(s, views)) {
            backend_of(device_).workspace(workspace_.data(), workspaces_[step]);
            s.call(views, Call::cuda);
        }
    } catch (const Error& e) {
        fail("%s%s%s", s.path.c_str(), s.path.empty() ? "" : ": ", e.what());
    }
}

void Program::walk(Binding& b, const Run& r) {
    if (b.first != int(r.first) || b.counts != r.counts || b.views.empty()) bind(b, r);
    size_t from = r.segment < 0 ? 0 : segment_begin_.at(size_t(r.segment));
    size_t to = r.segment < 0 ? steps_.size() : segment_begin_.at(size_t(r.segment) + 1);
    for (size_t i = from; i < to; i++) {
        const View* views = b.views.data() + first_view_[i];
        if (r.poison) poison(i, r.set);
        if (r.measured) *r.measured += cost_of(steps_[i], views);
        double start = r.seconds ? seconds_now() : 0;
        call(i, views);
        if (r.seconds && device_ != Device::cpu) backend_of(device_).synchronize();
        if (r.seconds) (*r.seconds)[steps_[i].kernel] += seconds_now() - start;
        if (r.after_step) (*r.after_step)(i);
    }
}

std::vector<View> Program::step_views(size_t step, bool first) const {
    std::vector<View> v; // shapes are enough for counting: any address will do, so no memory is taken
    for (const Argument& a : steps_[step].args) {
        v.push_back(view_of(a.tensor, a.tensor ? reinterpret_cast<std::byte*>(64) : nullptr));
        v.back().add = a.add == Add::yes || (a.add == Add::after_first && !first);
    }
    return v;
}
Cost Program::cost(size_t step, bool first) const {
    return cost_of(steps_[step], step_views(step, first).data());
}
Cost Program::cost() const {
    Cost all;
    for (size_t i = 0; i < steps_.size(); i++) all += cost(i);
    return all;
}

} // namespace nvl
