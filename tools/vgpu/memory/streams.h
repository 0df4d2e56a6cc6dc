// Order between the operations of a device's streams: vector clocks over streams. An operation is a launch, a
// copy or a fill; what it touches carries its stamps, so two operations that touch the same bytes, one of
// them writing, without an event or a synchronisation between them, are found whatever order they ran in.
//
// All methods are called in the host's program order, when the call is made, not when it runs. The host is a
// stream too (HOST): synchronisations are edges into it, and every operation is behind what the host has
// seen.
#pragma once
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tools/vgpu/memory/device_memory.h"

namespace vgpu {

class StreamClocks {
public:
    static constexpr uint32_t HOST = 0;

    /// The number of a new stream, from 1 on.
    uint32_t add_stream();
    /// A new operation in a stream; HOST for one that the host does itself and waits for. `name` is for
    /// reports.
    uint32_t operation(uint32_t stream, std::string name);

    void record(uint64_t event, uint32_t stream);
    void wait(uint32_t stream, uint64_t event); // cudaStreamWaitEvent; an event never recorded orders nothing
    void forget(uint64_t event);
    void wait_stream(uint32_t stream, uint32_t other); // legacy default stream, joins of a capture
    void synchronize_stream(uint32_t stream);          // the host waits
    void synchronize_event(uint64_t event);
    void synchronize_device();

    /// Has `before` ended before `now` starts, in every legal order?
    bool ordered(uint32_t before, uint32_t now) const;

    /// A launch runs: its segments start at `first_segment`. Returns the number below which all segments are
    /// ordered before it.
    uint32_t begin(uint32_t operation, Segments&);
    /// The operation that the segment belongs to; 0 if it is not known any more.
    uint32_t owner(uint32_t segment) const;
    std::string name(uint32_t operation) const;
    /// Stamps start anew.
    void forget_runs();

    /// A copy or fill of the host side runs: checks and stamps the range.
    void touch(uint32_t operation, DeviceMemory&, uint64_t address, uint64_t bytes, bool write);

private:
    using Clock = std::vector<uint32_t>; // of each stream
    struct Operation {
        uint32_t stream = 0, clock = 0;
        Clock seen; // what is ordered before it
        std::string name;
    };
    static void join(Clock&, const Clock&);
    bool ordered_locked(uint32_t before, uint32_t now) const;
    uint32_t owner_locked(uint32_t segment) const;

    mutable std::mutex mutex_;
    std::vector<Clock> streams_{Clock(1, 0)};
    std::unordered_map<uint64_t, Clock> events_;
    std::vector<Operation> operations_{Operation{}};  // number 0 is none
    std::vector<std::pair<uint32_t, uint32_t>> runs_; // (first segment, operation), ascending
};

} // namespace vgpu
