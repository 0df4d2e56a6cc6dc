#include "tools/vgpu/memory/streams.h"

#include <algorithm>

#include "tools/vgpu/memory/cells.h"
#include "tools/vgpu/report.h"

namespace vgpu {

void StreamClocks::join(Clock& to, const Clock& from) {
    if (to.size() < from.size()) to.resize(from.size());
    for (size_t i = 0; i < from.size(); i++) to[i] = std::max(to[i], from[i]);
}

uint32_t StreamClocks::add_stream() {
    std::lock_guard lock(mutex_);
    streams_.push_back(streams_[HOST]);
    streams_.back().resize(streams_.size());
    return uint32_t(streams_.size() - 1);
}

uint32_t StreamClocks::operation(uint32_t stream, std::string name) {
    std::lock_guard lock(mutex_);
    Clock& own = streams_[stream];
    join(own, streams_[HOST]); // enqueued after all that the host has seen
    if (own.size() <= stream) own.resize(stream + 1);
    uint32_t clock = ++own[stream];
    operations_.push_back({stream, clock, own, std::move(name)});
    return uint32_t(operations_.size() - 1);
}

void StreamClocks::record(uint64_t event, uint32_t stream) {
    std::lock_guard lock(mutex_);
    events_[event] = streams_[stream];
}

void StreamClocks::wait(uint32_t stream, uint64_t event) {
    std::lock_guard lock(mutex_);
    auto found = events_.find(event);
    if (found != events_.end()) join(streams_[stream], found->second);
}

void StreamClocks::forget(uint64_t event) {
    std::lock_guard lock(mutex_);
    events_.erase(event);
}

void StreamClocks::wait_stream(uint32_t stream, uint32_t other) {
    std::lock_guard lock(mutex_);
    Clock seen = streams_[other];
    join(streams_[stream], seen);
}

void StreamClocks::synchronize_stream(uint32_t stream) { wait_stream(HOST, stream); }
void StreamClocks::synchronize_event(uint64_t event) { wait(HOST, event); }

void StreamClocks::synchronize_device() {
    std::lock_guard lock(mutex_);
    Clock all;
    for (const Clock& c : streams_) join(all, c);
    streams_[HOST] = all;
}

bool StreamClocks::ordered_locked(uint32_t before, uint32_t now) const {
    if (before == 0 || before == now) return true;
    const Operation& b = operations_[before];
    const Clock& seen = operations_[now].seen;
    return b.stream < seen.size() && b.clock <= seen[b.stream];
}

bool StreamClocks::ordered(uint32_t before, uint32_t now) const {
    std::lock_guard lock(mutex_);
    return ordered_locked(before, now);
}

uint32_t StreamClocks::begin(uint32_t operation, Segments& segments) {
    std::lock_guard lock(mutex_);
    uint32_t first = segments.next(), old = first;
    // Operations that every stream and the host have left behind need no entry any more.
    auto passed = [&](const std::pair<uint32_t, uint32_t>& run) {
        const Operation& o = operations_[run.second];
        return std::all_of(streams_.begin(), streams_.end(),
                           [&](const Clock& c) { return o.stream < c.size() && o.clock <= c[o.stream]; });
    };
    size_t done = 0;
    while (done < runs_.size() && passed(runs_[done])) done++;
    runs_.erase(runs_.begin(), runs_.begin() + done);
    for (auto& [segment, other] : runs_)
        if (!ordered_locked(other, operation)) {
            old = segment;
            break;
        }
    runs_.push_back({first, operation});
    return old;
}

uint32_t StreamClocks::owner_locked(uint32_t segment) const {
    auto above = std::upper_bound(runs_.begin(), runs_.end(), segment,
                                  [](uint32_t s, auto& run) { return s < run.first; });
    return above == runs_.begin() ? 0 : std::prev(above)->second;
}

uint32_t StreamClocks::owner(uint32_t segment) const {
    std::lock_guard lock(mutex_);
    return owner_locked(segment);
}

std::string StreamClocks::name(uint32_t operation) const {
    std::lock_guard lock(mutex_);
    return operations_[operation].name;
}

void StreamClocks::forget_runs() {
    std::lock_guard lock(mutex_);
    runs_.clear();
}

void StreamClocks::touch(uint32_t operation, DeviceMemory& memory, uint64_t address, uint64_t bytes,
                         bool write) {
    Segments& segments = memory.shadow().segments;
    Stamp old = begin(operation, segments) << GLOBAL_SHIFT;
    uint32_t segment = segments.take(1);
    if (!segment) return;
    uint64_t begin = (address + 3) / 4 * 4, words = (address + bytes) / 4 * 4 / 4 - begin / 4;
    if ((address + bytes) / 4 * 4 <= begin) return; // no whole word
    Stamp* cell[4];
    for (int k = 0; k < 4; k++) cell[k] = memory.shadow().words(k, begin);
    for (uint64_t i = 0; i < words; i++) {
        for (int k : {WRITE, STRONG, READ, READ2}) {
            Stamp s = cell[k][i];
            if (s < old || s == SPLIT || (!write && (k == READ || k == READ2))) continue;
            uint32_t other = owner(s >> GLOBAL_SHIFT);
            if (ordered(other, operation)) continue;
            report({.fault = Fault::race_streams,
                    .kernel = "",
                    .source = "",
                    .what = name(operation) + " and " + name(other) + " touch the same memory (" +
                            memory.describe(begin + 4 * i, 4) +
                            ") in different streams without an event between them"});
            return;
        }
        cell[write ? WRITE : READ][i] = segment << GLOBAL_SHIFT;
    }
}

} // namespace vgpu
