// Random numbers as a pure function of (key, index): no state to save, nothing depends on order, threads or
// mesh.
//
// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace nvl {

inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t index, uint64_t stream) {
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    uint32_t c[4] = {uint32_t(index), uint32_t(index >> 32), uint32_t(stream), uint32_t(stream >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t a = uint64_t(c[0]) * 0xD2511F53u, b = uint64_t(c[2]) * 0xCD9E8D57u;
        uint32_t next[4] = {uint32_t(b >> 32) ^ c[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k1,
                            uint32_t(a)};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {c[0], c[1], c[2], c[3]};
}

/// A named stream of random numbers: Random(seed, "init", tensor)(i) is always the same number.
class Random {
public:
    explicit Random(uint64_t seed, std::string_view purpose = "", uint64_t stream = 0)
        : key_(seed), stream_(stream) {
        for (char ch : purpose) key_ = (key_ ^ uint8_t(ch)) * 0x100000001b3ull; // FNV-1a
    }
    uint64_t bits(uint64_t i) const {
        auto r = philox(key_, i, stream_);
        return uint64_t(r[0]) << 32 | r[1];
    }
    /// Uniform in [0, 1) with 53 bits.
    double uniform(uint64_t i) const { return double(bits(i) >> 11) * 0x1p-53; }
    /// Uniform integer in [0, n), by multiplication (bias below n / 2^64).
    uint64_t below(uint64_t i, uint64_t n) const { return uint64_t((unsigned __int128)(bits(i)) * n >> 64); }
    /// Standard normal, by Box and Muller.
    double normal(uint64_t i) const {
        auto r = philox(key_, i, stream_);
        double u = (double(uint64_t(r[0]) << 32 | r[1]) + 0.5) * 0x1p-64,
               v = double(uint64_t(r[2]) << 32 | r[3]) * 0x1p-64;
        return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
    }

private:
    uint64_t key_, stream_;
};

/// A bijection of [0, n) that is a function of the seed alone (Feistel network with cycle walking): position
/// i of the shuffled order needs no table, so a data loader's state is one integer.
uint64_t permuted(uint64_t i, uint64_t n, uint64_t seed);

} // namespace nvl
