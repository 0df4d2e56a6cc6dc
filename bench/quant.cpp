// Dequantisation against the memory floor: every type that files hold, to f32 and to bf16.
#include <cstdio>
#include <vector>

#include "bench/floors.h"
#include "engine/base/rng.h"
#include "kernels/quant/quantize.h"

using namespace nvl;

int main() {
    constexpr int64_t N = 16 << 20; // the f32 result is 64 MB
    double bandwidth = memory_bandwidth();
    std::printf("%d threads, memory %.1f GB/s; GB/s count the blocks read and the values written\n",
                threads(), bandwidth / 1e9);
    Memory out(N * 4);
    std::vector<std::byte> bytes(N * 4);
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = std::byte(i * 2654435761u >> 13 & 0x3f);
    for (auto* name : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
                       "Q6_K", "IQ4_XS", "MXFP4"}) {
        BlockType type = block_type_from(name);
        auto blocks = std::span(bytes).first(size_t(block_bytes(type, N)));
        std::printf("%-7s", name);
        for (Dtype to : {Dtype::f32, Dtype::bf16}) {
            double best = 1e9;
            for (int round = 0; round < 4; round++) {
                double start = seconds_now();
                dequantize(type, blocks, N, to, out.data());
                best = std::min(best, seconds_now() - start);
            }
            double rate = double(blocks.size() + size_t(N * size_of(to))) / best;
            std::printf("  to %-4s %6.2f G elements/s %6.1f GB/s %4.0f%% of floor", name_of(to),
                        double(N) / best / 1e9, rate / 1e9, 100 * rate / bandwidth);
        }
        std::printf("\n");
    }
}
