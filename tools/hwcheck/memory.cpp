// What device memory gives to plain kernels: the floor that memory-bound kernels are held against.
#include "tools/hwcheck/device_memory.h"
#include "tools/hwcheck/instructions.h"
#include "tools/hwcheck/report.h"

namespace nvl::hw {

void measure_memory(Report& r, const Setting& s) {
    int64_t n = s.is_virtual ? 1 << 14 : s.quick ? 1 << 24 : 1 << 26; // times 16 bytes
    int blocks = s.is_virtual ? 8 : multiprocessors() * 8;
    Buffer a(n * 16), b(n * 16), sums(blocks * 4);
    auto words = [](const Buffer& m) { return m.as<uint32_t>(); };
    auto measured = [&](const char* name, int64_t bytes, const std::function<void()>& launch) {
        double t = seconds_of(launch, s.is_virtual);
        r.json["memory"].push_back({{"name", name},
                                    {"measured", !s.is_virtual},
                                    {"bytes", bytes},
                                    {"seconds", t},
                                    {"gb_per_second", bytes / t * 1e-9}});
        return format("%.1f MB, %.1f GB/s", bytes * 1e-6, bytes / t * 1e-9);
    };
    auto ends_are = [&](const Buffer& m, uint32_t value) {
        std::vector<uint32_t> first = m.read<uint32_t>(1 << 12),
                              last = m.read<uint32_t>(1 << 12, 4 * n - (1 << 12));
        first.insert(first.end(), last.begin(), last.end());
        return std::all_of(first.begin(), first.end(), [&](uint32_t x) { return x == value; });
    };

    std::string text = measured(
        "write", n * 16, [&] { launch_write(words(a), n, 3, blocks, cuda_stream()), check_launch("write"); });
    r.check_that(ends_are(a, 3), "write", text);
    text = measured("read", n * 16, [&] {
        launch_read(words(a), n, blocks, words(sums), cuda_stream()), check_launch("read");
    });
    uint32_t sum = 0;
    for (uint32_t x : sums.read<uint32_t>(blocks)) sum += x;
    r.check_that(sum == uint32_t(n * 12), "read", text);
    text = measured("copy", n * 32,
                    [&] { launch_copy(words(b), words(a), n, blocks, cuda_stream()), check_launch("copy"); });
    r.check_that(ends_are(b, 3), "copy (read + written)", text);
}

} // namespace nvl::hw
