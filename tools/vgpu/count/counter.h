// Counts one launch; what it found is in traffic() after its destruction.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tools/vgpu/count/traffic.h"
#include "tools/vgpu/machine/observer.h"
#include "tools/vgpu/memory/device_memory.h"

namespace vgpu {

struct Tally;

class Counter : public Observer {
public:
    /// `l2` may be null. It sees sectors in the order of execution: use one worker where that matters.
    Counter(DeviceMemory&, std::string kernel, L2* l2 = nullptr);
    ~Counter() override;

    void block_begin(BlockId&) override;
    void block_end(BlockId&) override;
    uint32_t access(WarpId&, const Access&) override;
    void executed(WarpId&, const Site&, Unit, uint32_t lanes) override;

private:
    void global(Counts&, const Access&, bool write);

    DeviceMemory& memory_;
    std::string kernel_;
    L2* l2_;
    L2::Counts l2_before_;
    uint32_t epoch_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Tally>> free_;
};

/// Wavefronts of a warp's access to shared memory.
uint64_t wavefronts_of(const uint64_t* offset, uint32_t bytes, uint32_t lanes);
/// The distinct 32-byte sectors of a warp's access: at most 33 * bytes / 32 + 32 go to `sector`; how many.
uint32_t sectors_of(const uint64_t* address, uint32_t bytes, uint32_t lanes, std::vector<uint64_t>& sector);

} // namespace vgpu
