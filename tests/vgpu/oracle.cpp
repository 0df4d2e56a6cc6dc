// The machine's mma and ldmatrix against the ISA's formulas: exact, so no tolerance can hide a wrong place.
#include <array>
#include <cstring>
#include <vector>

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "tests/vgpu/oracle.h"
#include "tools/vgpu/vgpu.h"

namespace {

using A = std::array<std::array<int, 16>, 16>; // [row][k]
using B = std::array<std::array<int, 8>, 16>;  // [k][column]
using D = std::array<std::array<int, 8>, 16>;

template <class T> struct Device {
    T* p = nullptr;
    explicit Device(size_t n) { cudaMalloc(reinterpret_cast<void**>(&p), n * sizeof(T)); }
    explicit Device(const std::vector<T>& v) : Device(v.size()) {
        cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice);
    }
    ~Device() { cudaFree(p); }
    std::vector<T> get(size_t n) const {
        std::vector<T> v(n);
        EXPECT_EQ(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
        return v;
    }
};

uint32_t bf16(int small) { // exact up to 256
    float f = float(small);
    uint32_t u;
    std::memcpy(&u, &f, 4);
    return u >> 16;
}

/// Runs all cases in one launch.
std::vector<D> products(const std::vector<A>& as, const std::vector<B>& bs) {
    size_t n = as.size();
    std::vector<uint32_t> a(n * 128), b(n * 64);
    for (size_t c = 0; c < n; c++)
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 8; i++) {
                isa::At at = isa::a_16816(lane, i);
                a[(c * 32 + lane) * 4 + i / 2] |= bf16(as[c][at.row][at.column]) << (i % 2 * 16);
            }
            for (int i = 0; i < 4; i++) {
                isa::At at = isa::b_16816(lane, i);
                b[(c * 32 + lane) * 2 + i / 2] |= bf16(bs[c][at.row][at.column]) << (i % 2 * 16);
            }
        }
    Device<uint32_t> da(a), db(b);
    Device<float> dd(n * 128);
    launch_mma_cases(int(n), da.p, db.p, dd.p);
    std::vector<float> d = dd.get(n * 128);
    std::vector<D> results(n);
    for (size_t c = 0; c < n; c++)
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++) {
                isa::At at = isa::c_16816(lane, i);
                results[c][at.row][at.column] = int(d[(c * 32 + lane) * 4 + i]);
            }
    return results;
}

struct Oracle : testing::Test {
    void SetUp() override { vgpu::reset(vgpu::Options::from_environment()); }
    void TearDown() override { EXPECT_TRUE(vgpu::findings().empty()); }
};

} // namespace

TEST_F(Oracle, mma_of_one_hot_matrices) {
    std::vector<A> as;
    std::vector<B> bs;
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++) {
                as.push_back({}), bs.push_back({});
                as.back()[i][k] = 3;
                bs.back()[k][j] = 5;
            }
    std::vector<D> d = products(as, bs);
    size_t c = 0, wrong = 0;
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++, c++) {
                D want{};
                want[i][j] = 15;
                wrong += d[c] != want;
            }
    EXPECT_EQ(wrong, 0u);
}

TEST_F(Oracle, mma_of_integers) {
    std::vector<A> as(50);
    std::vector<B> bs(50);
    uint32_t state = 1;
    auto next = [&] { return int((state = state * 1664525u + 1013904223u) >> 24) % 17 - 8; };
    for (auto& a : as)
        for (auto& row : a)
            for (int& x : row) x = next();
    for (auto& b : bs)
        for (auto& row : b)
            for (int& x : row) x = next();
    std::vector<D> d = products(as, bs);
    for (size_t c = 0; c < d.size(); c++)
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                int want = 0;
                for (int k = 0; k < 16; k++) want += as[c][i][k] * bs[c][k][j];
                ASSERT_EQ(d[c][i][j], want) << c << " " << i << " " << j;
            }
}

TEST_F(Oracle, ldmatrix) {
    std::vector<uint16_t> tile(256);
    std::vector<int> order(32);
    for (int i = 0; i < 256; i++) tile[i] = uint16_t(1000 + i);
    for (int i = 0; i < 32; i++) order[i] = i * 13 % 32;
    Device<uint16_t> dt(tile);
    Device<int> order_on_device(order);
    Device<uint32_t> out(6 * 128);
    launch_ldmatrix(dt.p, order_on_device.p, out.p);
    std::vector<uint32_t> got = out.get(6 * 128);
    for (int variant = 0; variant < 6; variant++)
        for (int lane = 0; lane < 32; lane++)
            for (int matrix = 0; matrix < 1 << variant % 3; matrix++)
                for (int h = 0; h < 2; h++) {
                    isa::At at = variant < 3 ? isa::ldmatrix(lane, h) : isa::ldmatrix_trans(lane, h);
                    uint32_t reg = got[variant * 128 + lane * 4 + matrix];
                    EXPECT_EQ(reg >> (16 * h) & 0xffff, tile[matrix * 64 + at.row * 8 + at.column])
                        << variant << " " << lane << " " << matrix << " " << h;
                }
}
