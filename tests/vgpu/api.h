// What tests of the look-alikes share: a fresh virtual GPU, and buffers.
#pragma once
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tools/vgpu/vgpu.h"

inline std::string all_findings() {
    std::string text;
    for (const vgpu::Finding& f : vgpu::findings()) text += text_of(f) + "\n";
    return text;
}

/// How many findings of this kind there are; forgets all of them.
inline int64_t take_findings(vgpu::Fault fault) {
    int64_t n = 0;
    for (const vgpu::Finding& f : vgpu::findings()) n += f.fault == fault ? f.times : 0;
    vgpu::clear_findings();
    return n;
}

/// Starts with a fresh device; ends without findings, or the test has taken them.
struct Vgpu : testing::Test {
    vgpu::Options options = vgpu::Options::from_environment();
    Vgpu() { restart(); }
    ~Vgpu() override {
        EXPECT_EQ(all_findings(), "");
        vgpu::reset(vgpu::Options::from_environment());
    }
    void restart() { vgpu::reset(options); }
};

inline void ok(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << vgpu::last_refusal(); }

template <class X> X* device_array(size_t n) {
    void* p = nullptr;
    ok(cudaMalloc(&p, n * sizeof(X)));
    return static_cast<X*>(p);
}
template <class X> X* to_device(const std::vector<X>& values) {
    X* p = device_array<X>(values.size());
    ok(cudaMemcpy(p, values.data(), values.size() * sizeof(X), cudaMemcpyHostToDevice));
    return p;
}
template <class X> std::vector<X> to_host(const X* p, size_t n) {
    std::vector<X> values(n);
    ok(cudaMemcpy(values.data(), p, n * sizeof(X), cudaMemcpyDeviceToHost));
    return values;
}
