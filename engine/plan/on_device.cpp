// What a program does more where it does not run on the CPU: scratch memory of kernels, copies of inputs and
// results in host memory, graphs.
#include <algorithm>

#include "engine/plan/program.h"

namespace nvl {

void Program::find_workspaces() {
    if (device_ == Device::cpu) return;
    for (size_t i = 0; i < steps_.size(); i++) {
        for (const Argument& a : steps_[i].args)
            check(!a.tensor || !writes(a.use) || !a.tensor.buffer->input,
                  "%s writes the input %s; on %s inputs are read only", steps_[i].kernel, a.tensor.name(),
                  name_of(device_));
        auto bytes = int64_t(steps_[i].call(step_views(i, true).data(), Call::workspace));
        workspaces_.push_back((bytes + 255) / 256 * 256);
        workspace_bytes = std::max(workspace_bytes, workspaces_.back());
    }
}

// Of a tensor with rows by capacity: those that the last run had. The rest was not written.
int64_t Program::used_bytes(const Buffer* b, int set) const {
    const std::vector<int64_t>& counts = bindings_[size_t(set)].last;
    Dim rows = b->shape.rank ? b->shape[0] : Dim();
    if (counts.empty() || !rows.symbol || !rows.size) return b->bytes();
    return b->bytes() / rows.size * (rows.size * counts[rows.symbol - 1u] / capacity_[rows.symbol - 1u]);
}

View Program::host_view(const Tensor& t, int set) const {
    View v = view(t, set);
    if (device_ == Device::cpu || !v) return v;
    const Buffer* b = t.buffer->storage ? t.buffer->storage : t.buffer;
    Mirror& m = mirrors_[{set, b}];
    if (!m.memory) m.memory = Memory(size_t(b->bytes()) + 1);
    std::byte* from = base(b, set);
    if (!b->input && !m.fresh) {
        backend_of(device_).download(m.memory.data(), from, size_t(used_bytes(b, set)));
        m.fresh = b->keep; // what others may write as well, or what is not kept, is read each time
    }
    v.data = m.memory.data() + (v.data - from);
    return v;
}

void Program::send_inputs(int set) {
    for (auto& [key, m] : mirrors_) {
        if (key.first != set) continue;
        m.fresh = false;
        if (key.second->input)
            backend_of(device_).upload(base(key.second, set), m.memory.data(), size_t(key.second->bytes()));
    }
}

void Program::run_on_device(Binding& b, const Run& r) {
    int set = int(&b - bindings_.data());
    send_inputs(set);
    bool watched = r.poison || r.measured || r.seconds || r.after_step;
    for (const Step& s : steps_) watched |= s.traits.on_host;
    if (watched) return walk(b, r);
    auto same = [&](const Graph& g) {
        return g.segment == r.segment && g.first == r.first && g.counts == r.counts;
    };
    auto g = std::find_if(b.graphs.begin(), b.graphs.end(), same);
    if (g == b.graphs.end()) { // the first of its kind, which may be the only one
        constexpr size_t MOST = 32;
        if (b.graphs.size() == MOST) b.graphs.erase(b.graphs.begin());
        b.graphs.push_back({r.segment, r.first, r.counts, nullptr});
        return walk(b, r);
    }
    if (!g->graph) g->graph = backend_of(device_).capture([&] { walk(b, r); });
    g->graph->replay();
    replayed++;
}

// Bytes from the first to the last element of a view.
static size_t span_of(const View& v) {
    if (!v || !v.numel()) return 0;
    int64_t span = 1;
    for (size_t d = 0; d < size_t(v.rank); d++) span += (v.shape[d] - 1) * v.stride[d];
    return size_t(span * size_of(v.dtype));
}

// The arguments come down, and what the kernel wrote goes up again.
void Program::call_on_host(size_t step, const View* views) {
    const Step& s = steps_[step];
    std::vector<View> here(views, views + s.args.size());
    std::vector<Memory> copies;
    std::vector<size_t> spans;
    for (size_t i = 0; i < here.size(); i++) {
        View& v = here[i];
        spans.push_back(span_of(v));
        copies.emplace_back(spans.back() + 1);
        bool replaced = s.args[i].use == Use::out && spans.back() == size_t(v.bytes());
        if (!replaced) backend_of(device_).download(copies.back().data(), v.data, spans.back());
        if (v) v.data = copies.back().data();
    }
    s.call(here.data(), Call::cpu);
    for (size_t i = 0; i < here.size(); i++)
        if (here[i] && writes(s.args[i].use))
            backend_of(device_).upload(views[i].data, here[i].data, spans[i]);
}

} // namespace nvl
