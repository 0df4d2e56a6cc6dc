// The order of operations as the program asked for it, told to the memory of every device: streams may touch
// the memory of several (copies between peers), so all of their clocks tick together.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tools/vgpu/memory/streams.h"

namespace vgpu::cuda {

class Clocks {
public:
    void restart(int devices, uint32_t lanes) {
        all_.clear();
        for (int i = 0; i < devices; i++) all_.push_back(std::make_unique<StreamClocks>());
        for (uint32_t i = 0; i < lanes; i++) add_stream();
    }
    StreamClocks& of(int device) { return *all_[size_t(device)]; }
    void add_stream() {
        for (auto& c : all_) c->add_stream();
    }
    uint32_t operation(uint32_t lane, const std::string& name) {
        uint32_t number = 0;
        for (auto& c : all_) number = c->operation(lane, name);
        return number;
    }
    void record(uint64_t event, uint32_t lane) {
        for (auto& c : all_) c->record(event, lane);
    }
    void wait(uint32_t lane, uint64_t event) {
        for (auto& c : all_) c->wait(lane, event);
    }
    void forget(uint64_t event) {
        for (auto& c : all_) c->forget(event);
    }
    void wait_lane(uint32_t lane, uint32_t other) {
        for (auto& c : all_) c->wait_stream(lane, other);
    }
    void host_waits_lane(uint32_t lane) {
        for (auto& c : all_) c->synchronize_stream(lane);
    }
    void host_waits_event(uint64_t event) {
        for (auto& c : all_) c->synchronize_event(event);
    }
    void host_waits_all() {
        for (auto& c : all_) c->synchronize_device();
    }

private:
    std::vector<std::unique_ptr<StreamClocks>> all_;
};

} // namespace vgpu::cuda
