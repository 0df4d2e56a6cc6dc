#include "tools/hwcheck/goldens.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "tools/hwcheck/instructions.h"

namespace {

void must(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

using A = std::array<std::array<int, 16>, 16>; // [row][k]
using B = std::array<std::array<int, 8>, 16>;  // [k][column]
using D = std::array<std::array<int, 8>, 16>;

template <class T> struct Device {
    T* p = nullptr;
    explicit Device(size_t n) { must(cudaMalloc(reinterpret_cast<void**>(&p), n * sizeof(T))); }
    explicit Device(const std::vector<T>& v) : Device(v.size()) {
        must(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
    }
    Device(const Device&) = delete;
    ~Device() { cudaFree(p); }
    std::vector<T> get(size_t n) const { // of what the kernel before wrote
        must(cudaGetLastError());
        std::vector<T> v(n);
        must(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
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

/// Matrix elements are compared as they are: exact, so no tolerance can hide a wrong place.
int64_t differences(const std::vector<D>& found, const std::vector<A>& as, const std::vector<B>& bs) {
    int64_t wrong = 0;
    for (size_t c = 0; c < found.size(); c++) {
        D want{};
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++)
                for (int k = 0; k < 16; k++) want[i][j] += as[c][i][k] * bs[c][k][j];
        wrong += found[c] != want;
    }
    return wrong;
}

/// PTX ISA, shfl.sync: the lane that `lane` reads from.
int shuffle_source(char mode, int lane, int b, int width) {
    int group = lane & ~(width - 1), last = group | (width - 1), j = lane;
    if (mode == 'i') j = group | (b & (width - 1));
    if (mode == 'u' && lane - b >= group) j = lane - b;
    if (mode == 'd' && lane + b <= last) j = lane + b;
    if (mode == 'x' && (lane ^ b) <= last) j = lane ^ b;
    return j;
}

double exact(Approximation f, double x) {
    switch (f) {
    case Approximation::ex2: return std::exp2(x);
    case Approximation::lg2: return std::log2(x);
    case Approximation::rcp: return 1 / x;
    case Approximation::rsqrt: return 1 / std::sqrt(x);
    case Approximation::tanh: return std::tanh(x);
    }
    return NAN;
}

/// The arguments that models meet, and far beyond: u from 0 to 1.
float argument(Approximation f, double u) {
    if (f == Approximation::ex2) return float(-125 + 250 * u);
    if (f == Approximation::tanh)
        return float((u < 0.5 ? -1 : 1) * std::exp2(-12 + 16 * std::fmod(2 * u, 1)));
    if (f == Approximation::lg2 && u < 0.25) return float(0.5 + 6 * u); // near its zero
    return float(std::exp2(-100 + 200 * u));
}

} // namespace

namespace hwcheck {

Golden mma_of_one_hot_matrices() {
    std::vector<A> as;
    std::vector<B> bs;
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++) {
                as.push_back({}), bs.push_back({});
                as.back()[i][k] = 3;
                bs.back()[k][j] = 5;
            }
    return {"mma.m16n8k16 bf16, one-hot matrices", int64_t(as.size()), differences(products(as, bs), as, bs)};
}

Golden mma_of_integers() {
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
    return {"mma.m16n8k16 bf16, integers", int64_t(as.size()), differences(products(as, bs), as, bs)};
}

Golden ldmatrix() {
    std::vector<uint16_t> tile(256);
    std::vector<int> order(32);
    for (int i = 0; i < 256; i++) tile[i] = uint16_t(1000 + i);
    for (int i = 0; i < 32; i++) order[i] = i * 13 % 32;
    Device<uint16_t> dt(tile);
    Device<int> order_on_device(order);
    Device<uint32_t> out(6 * 128);
    launch_ldmatrix(dt.p, order_on_device.p, out.p);
    std::vector<uint32_t> got = out.get(6 * 128);
    Golden g{"ldmatrix x1, x2, x4, and .trans"};
    for (int variant = 0; variant < 6; variant++)
        for (int lane = 0; lane < 32; lane++)
            for (int matrix = 0; matrix < 1 << variant % 3; matrix++)
                for (int h = 0; h < 2; h++, g.cases++) {
                    isa::At at = variant < 3 ? isa::ldmatrix(lane, h) : isa::ldmatrix_trans(lane, h);
                    uint32_t reg = got[variant * 128 + lane * 4 + matrix];
                    g.wrong += (reg >> (16 * h) & 0xffff) != tile[matrix * 64 + at.row * 8 + at.column];
                }
    return g;
}

Golden shuffles() {
    struct Variant {
        char mode;
        int b, width; // b < 0: 7 lane + 3
    };
    constexpr Variant VARIANTS[] = {{'i', -1, 32}, {'i', -1, 8}, {'u', 3, 32}, {'u', 1, 16},
                                    {'d', 5, 32},  {'d', 2, 8},  {'x', 9, 32}, {'x', 9, 8}};
    Device<int> out(8 * 32);
    launch_shuffles(out.p);
    std::vector<int> got = out.get(8 * 32);
    Golden g{"shfl idx, up, down, bfly; whole warps and parts"};
    for (const Variant& v : VARIANTS)
        for (int lane = 0; lane < 32; lane++, g.cases++)
            g.wrong += got[size_t(g.cases)] !=
                       100 + shuffle_source(v.mode, lane, v.b < 0 ? 7 * lane + 3 : v.b, v.width);
    return g;
}

Golden copies() {
    std::vector<uint8_t> from(512);
    for (int i = 0; i < 512; i++) from[i] = uint8_t(1 + i % 251); // never zero
    Device<uint8_t> source(from), out(640);
    launch_copies(source.p, out.p);
    std::vector<uint8_t> got = out.get(640);
    Golden g{"cp.async of 16 and 4 bytes, zero filled"};
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 16; i++, g.cases++)
            g.wrong += got[lane * 16 + i] != (i < std::min(lane, 16) ? from[lane * 16 + i] : 0);
        for (int i = 0; i < 4; i++, g.cases++)
            g.wrong += got[512 + lane * 4 + i] != (lane % 2 ? from[lane * 16 + i] : 0);
    }
    return g;
}

Accuracy accuracy(Approximation f, int n) {
    std::vector<float> x(static_cast<size_t>(n));
    for (int i = 0; i < n; i++) x[size_t(i)] = argument(f, (i + 0.5) / n);
    Device<float> dx(x), dy(x.size());
    launch_approximation(f, dx.p, dy.p, n);
    std::vector<float> y = dy.get(x.size());
    Accuracy r;
    for (size_t i = 0; i < x.size(); i++) {
        double want = exact(f, x[i]), error = std::abs(y[i] - want);
        if (!(error < INFINITY)) error = INFINITY;
        double ulps = want ? std::ldexp(error, 23 - std::ilogb(want)) : 0;
        if (ulps > r.ulps) r.ulps = ulps, r.at = x[i];
        r.absolute = std::max(r.absolute, error);
        bool near_zero = f == Approximation::lg2 && x[i] > 0.5 && x[i] < 2;
        if (near_zero)
            r.absolute_near_zero = std::max(r.absolute_near_zero, error);
        else if (want)
            r.relative = std::max(r.relative, error / std::abs(want));
    }
    return r;
}

} // namespace hwcheck
