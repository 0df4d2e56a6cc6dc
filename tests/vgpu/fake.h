// A kernel's life told to an observer by hand.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tools/vgpu/machine/observer.h"
#include "tools/vgpu/report.h"

namespace vgpu {

/// One block with its warps.
class FakeBlock {
public:
    FakeBlock(Observer& observer, uint64_t number, uint32_t warps = 1, uint32_t shared = 1024)
        : observer_(observer), id_{{uint32_t(number)}, number, warps, warps * 32, shared} {
        for (uint32_t i = 0; i < warps; i++) warps_.push_back({&id_, i});
        observer_.block_begin(id_);
    }
    ~FakeBlock() { observer_.block_end(id_); }
    FakeBlock(const FakeBlock&) = delete;

    WarpId& warp(uint32_t w) { return warps_[w]; }
    BlockId& id() { return id_; }

    /// Lane i touches first + i * stride.
    uint32_t access(uint32_t w, Space space, Kind kind, uint64_t first, uint32_t bytes = 4,
                    uint64_t stride = 4, uint32_t lanes = ~0u, Order order = Order::weak,
                    const std::byte* value = nullptr) {
        uint64_t address[32];
        for (uint32_t i = 0; i < 32; i++) address[i] = first + i * stride;
        sites_.push_back(std::make_unique<Site>(Site{"fake", ++line, "fake.cu"}));
        return observer_.access(warps_[w], {.site = sites_.back().get(),
                                            .space = space,
                                            .kind = kind,
                                            .order = order,
                                            .scope = Scope::gpu,
                                            .bytes = bytes,
                                            .lanes = lanes,
                                            .address = address,
                                            .value = value});
    }
    void barrier(std::vector<uint32_t> who = {}) {
        std::vector<WarpId*> list;
        if (who.empty())
            for (WarpId& w : warps_) list.push_back(&w);
        for (uint32_t w : who) list.push_back(&warps_[w]);
        observer_.block_barrier(id_, 0, list.data(), uint32_t(list.size()));
    }

    static inline uint32_t line = 0; // of the next access; tests may set it

private:
    Observer& observer_;
    BlockId id_;
    std::vector<WarpId> warps_;
    static inline std::vector<std::unique_ptr<Site>> sites_; // outlive checkers
};

/// Names of all faults found since the last call, in order: "RACE_SHARED UNINITIALISED".
inline std::string faults() {
    std::string s;
    for (const Finding& f : findings()) s += (s.empty() ? "" : " ") + std::string(name_of(f.fault));
    clear_findings();
    return s;
}

} // namespace vgpu
