#include <cstring>

#include <gtest/gtest.h>

#include "tools/vgpu/memory/device_memory.h"
#include "tools/vgpu/report.h"

using namespace vgpu;

TEST(DeviceMemory, allocates_poisoned_memory_until_it_is_full) {
    DeviceMemory memory({.limit = 1 << 20});
    uint64_t a = memory.allocate(1000), b = memory.allocate(1 << 19);
    EXPECT_EQ(a % 256, 0u);
    EXPECT_GE(b, a + 1024 + 256);
    EXPECT_EQ(memory.used(), 1024u + (1 << 19));
    EXPECT_EQ(memory.allocate(1 << 19), 0u); // does not fit
    EXPECT_EQ(memory.allocate(0), 0u);
    Unlocked guard(memory);
    EXPECT_EQ(*reinterpret_cast<uint32_t*>(a), ~0u);
    std::memset(reinterpret_cast<void*>(a), 0, 1000);
}

TEST(DeviceMemory, released_memory_is_not_given_out_again) {
    DeviceMemory memory({.limit = 1 << 20});
    uint64_t a = memory.allocate(1 << 19);
    EXPECT_FALSE(memory.release(a + 256));
    EXPECT_TRUE(memory.release(a));
    EXPECT_FALSE(memory.release(a)); // double free
    uint64_t b = memory.allocate(1 << 19);
    EXPECT_NE(a, b);
    EXPECT_FALSE(memory.valid(a, 1));
    EXPECT_TRUE(memory.valid(b, 1 << 19));
    EXPECT_FALSE(memory.valid(b, (1 << 19) + 1));
    EXPECT_EQ(memory.live().size(), 1u);
    EXPECT_EQ(memory.describe(a + 7, 1), "byte 7 of the 524288 bytes of the released allocation 1");
    EXPECT_EQ(memory.describe(b + (1 << 19) - 2, 4),
              "2 bytes beyond the end of the 524288 bytes of allocation 2");
    EXPECT_EQ(memory.describe(b + (1 << 19) + 4, 4), "4 bytes behind the 524288 bytes of allocation 2");
    EXPECT_EQ(memory.describe(b - 4, 4), "4 bytes in front of the 524288 bytes of allocation 2");
}

TEST(DeviceMemory, without_checks_memory_is_used_again) {
    DeviceMemory memory({.limit = 1 << 20, .checked = false, .region = 4 << 20});
    uint64_t first = memory.allocate(1 << 19);
    for (int i = 0; i < 100; i++) {
        EXPECT_TRUE(memory.release(first));
        EXPECT_EQ(memory.allocate(1 << 19), first);
    }
    *reinterpret_cast<int*>(first) = 1; // accessible
}

TEST(DeviceMemory, address_space_runs_out_and_the_oldest_goes_first) {
    DeviceMemory memory({.limit = 1 << 20, .region = 4 << 20});
    for (int i = 0; i < 100; i++) {
        uint64_t a = memory.allocate(1 << 19);
        ASSERT_NE(a, 0u);
        EXPECT_EQ(memory.written(a, 64), 0u);
        memory.mark_written(a, 64);
        EXPECT_TRUE(memory.release(a));
    }
}

TEST(DeviceMemory, written_bytes) {
    DeviceMemory memory({.limit = 1 << 20});
    uint64_t a = memory.allocate(4096), b = memory.allocate(4096);
    memory.mark_written(a + 3, 1000);
    EXPECT_EQ(memory.written(a, 1), 0u);
    EXPECT_EQ(memory.written(a + 3, 4000), 1000u);
    memory.mark_unwritten(a + 500, 1);
    memory.copy_written(b + 1, a, 4000);
    EXPECT_EQ(memory.written(b + 4, 4000), 497u);
    EXPECT_EQ(memory.written(b + 502, 4000), 502u);
    EXPECT_EQ(memory.written(b + 501, 1), 0u);
}

TEST(DeviceMemoryDeath, host_access_is_one_clear_line) {
    EXPECT_EXIT(
        {
            DeviceMemory memory({.device = 1, .limit = 1 << 20});
            float* x = reinterpret_cast<float*>(memory.allocate(100));
            {
                Unlocked guard(memory);
                x[3] = 1;
            }
            x[3] = 2;
        },
        testing::ExitedWithCode(1),
        "HOST_ACCESS: the host dereferenced device memory \\(device 1, byte 12 of the 100 bytes of "
        "allocation 1\\); "
        "use cudaMemcpy");
}

TEST(Findings, are_merged) {
    clear_findings();
    for (int i = 0; i < 3; i++) report({Fault::race_shared, "gemm", "gemm.cu:58", 112, {1}, {3}, "a and b"});
    report({Fault::race_shared, "gemm", "gemm.cu:59", 113, {}, {}, "a and b"});
    ASSERT_EQ(findings().size(), 2u);
    EXPECT_EQ(text_of(findings()[0]),
              "RACE_SHARED in gemm at gemm.cu:58 (ptx 112), block (1,1,1) thread (3,1,1): a and b (3 times)");
    clear_findings();
}

TEST(Findings, names_are_readable) {
    EXPECT_EQ(readable("_ZN12_GLOBAL__N_14gemmILi64EfEEvPKfPf"), "gemm<64, float>");
    EXPECT_EQ(readable("plain"), "plain");
}
