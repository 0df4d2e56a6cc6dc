// engine/base and engine/io: numbers, threads, text, files.
#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "engine/base/dtype.h"
#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/base/text.h"
#include "engine/io/file.h"

using namespace nvl;

TEST(Dtype, HalfRoundTripsEveryPattern) {
    for (uint32_t i = 0; i < 65536; i++) {
        f16 h;
        h.bits = uint16_t(i);
        float f = h;
        if (f != f) {
            EXPECT_NE(float(f16(f)), float(f16(f)));
            continue;
        }
        EXPECT_EQ(f16(f).bits, h.bits) << i;
    }
    EXPECT_EQ(float(f16(65520.0f)), INFINITY);
    EXPECT_EQ(float(f16(65519.0f)), 65504.0f);
    EXPECT_EQ(f16(0x1p-25f).bits, 0); // a tie goes to even
    EXPECT_EQ(bf16(1.00390625f).bits, 0x3f80);
}
TEST(Parallel, EveryIndexOnceAndErrorsComeBack) {
    for (int n : {1, 2, 3}) {
        set_threads(n);
        std::vector<std::atomic<int>> seen(1000);
        for (int round = 0; round < 50; round++)
            parallel_for(1000, 7, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; i++) seen[size_t(i)]++;
            });
        for (auto& s : seen) EXPECT_EQ(s, 50);
        EXPECT_THROW(parallel_for(100, 1, [](int64_t, int64_t) { fail("inside"); }), Error);
    }
}
TEST(Random, PermutationIsABijection) {
    for (uint64_t n : {1u, 2u, 3u, 10u, 1000u}) {
        std::set<uint64_t> seen;
        for (uint64_t i = 0; i < n; i++) seen.insert(permuted(i, n, 42));
        EXPECT_EQ(seen.size(), n);
        EXPECT_EQ(*seen.rbegin(), n - 1);
    }
    // Random123's published known answer for philox4x32-10 with all ones
    auto r = philox(~0ull, ~0ull, ~0ull);
    EXPECT_EQ(r, (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}
TEST(Text, Helpers) {
    EXPECT_EQ(nearest("lerning_rate", {"steps", "learning_rate"}), "learning_rate");
    EXPECT_TRUE(matches("layers.*.q_proj", "layers.12.q_proj"));
    EXPECT_FALSE(matches("layers.*.q_proj", "layers.12.k_proj"));
    EXPECT_EQ(utf8_complete("a\xe2\x82"), 1u);
    EXPECT_EQ(utf8_complete("a\xe2\x82\xac"), 4u);
    EXPECT_EQ(with_commas(-1234567), "-1,234,567");
}
TEST(File, HashAndAtomicWrite) {
    EXPECT_EQ(sha256({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    std::string a(1000, 'a'), path = testing::TempDir() + "/nvl_file";
    EXPECT_EQ(sha256(std::as_bytes(std::span(a))),
              "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
    write_file(path, "one");
    EXPECT_THROW(write_file(path,
                            [](auto& write) {
                                write("xx", 2);
                                fail("produced half");
                            }),
                 Error);
    EXPECT_EQ(read_file(path), "one");
    EXPECT_THROW(read_file("/nonexistent/x"), Error);
}
