#include <gtest/gtest.h>

#include "tests/vgpu/fake.h"
#include "tools/vgpu/count/counter.h"

using namespace vgpu;

namespace {
constexpr Space G = Space::global, S = Space::shared;
constexpr Kind LOAD = Kind::load, STORE = Kind::store;

struct CounterTest : testing::Test {
    DeviceMemory memory{{.limit = 1 << 20}};
    uint64_t x = memory.allocate(1 << 16);
    CounterTest() { clear_traffic(); }

    template <class F> Traffic launch(F story, L2* l2 = nullptr) {
        clear_traffic();
        {
            Counter counter(memory, "k", l2);
            story(counter);
        }
        return traffic_of("k");
    }
};

uint64_t wavefronts(uint32_t bytes, uint64_t stride, uint32_t lanes = ~0u) {
    uint64_t offset[32];
    for (uint32_t i = 0; i < 32; i++) offset[i] = i * stride;
    return wavefronts_of(offset, bytes, lanes);
}
} // namespace

TEST(Banks, rules) {
    EXPECT_EQ(wavefronts(4, 4), 1u);
    EXPECT_EQ(wavefronts(4, 0), 1u); // broadcast
    EXPECT_EQ(wavefronts(4, 8), 2u);
    EXPECT_EQ(wavefronts(4, 128), 32u);
    EXPECT_EQ(wavefronts(4, 132), 1u); // padding
    EXPECT_EQ(wavefronts(2, 2), 1u);   // two lanes share a word
    EXPECT_EQ(wavefronts(2, 128), 32u);
    EXPECT_EQ(wavefronts(8, 8), 2u);
    EXPECT_EQ(wavefronts(8, 128), 32u);
    EXPECT_EQ(wavefronts(16, 16), 4u);
    EXPECT_EQ(wavefronts(16, 128), 32u); // rows of 128 bytes without a swizzle: 8-way
    EXPECT_EQ(wavefronts(16, 144), 4u);
    EXPECT_EQ(wavefronts(16, 16, 0xff), 1u);
    EXPECT_EQ(wavefronts(4, 128, 1), 1u);
    uint64_t swizzled[32]; // 64 bf16 per row, chunk ^= row % 8
    for (uint32_t i = 0; i < 32; i++) swizzled[i] = i * 128 + ((i / 8) ^ (i % 8)) * 16;
    EXPECT_EQ(wavefronts_of(swizzled, 16, ~0u), 4u);
}

TEST_F(CounterTest, sectors) {
    Traffic t = launch([&](Counter& c) {
        FakeBlock b(c, 0);
        b.access(0, G, LOAD, x);               // 128 bytes: 4 sectors
        b.access(0, G, LOAD, x);               // again: unique stays
        b.access(0, G, LOAD, x + 8192, 4, 64); // stride 16: 32 sectors
        b.access(0, G, STORE, x + 16, 16, 16); // 512 bytes across 17 sectors
        b.access(0, G, STORE, x, 2, uint64_t(2));
        b.access(0, G, Kind::atomic, x + 1024, 4, 0);
    });
    EXPECT_EQ(t.read.requested, 3u * 128);
    EXPECT_EQ(t.read.sectors, 4u + 4 + 32);
    EXPECT_EQ(t.read.unique, 4u + 32);
    EXPECT_EQ(t.write.requested, 512u + 64 + 128);
    EXPECT_EQ(t.write.sectors, 17u + 2 + 1);
    EXPECT_EQ(t.write.unique, 17u + 1);
    EXPECT_EQ(t.atomics, 32u);
    EXPECT_EQ(t.loads, 3u);
    EXPECT_EQ(t.stores, 3u);
    ASSERT_EQ(t.lines.size(), 6u);
    EXPECT_EQ(t.lines[2].read.sectors, 32u);
    EXPECT_DOUBLE_EQ(t.lines[2].read.sectors_per_requested(), 8);
}

TEST_F(CounterTest, shared_and_units) {
    Traffic t = launch([&](Counter& c) {
        FakeBlock b(c, 0, 2, 8192);
        b.access(0, S, STORE, 0, 16, 16);
        b.access(1, S, LOAD, 0, 16, 128);
        b.access(1, S, Kind::copy_issue, 0, 16, 16);
        b.access(1, S, Kind::copy_landing, 0, 16, 16);
        static Site site{"k", 1000, "k.cu:1"};
        c.executed(b.warp(0), site, Unit::tensor, ~0u);
        c.executed(b.warp(0), site, Unit::shuffle, 0xff);
    });
    EXPECT_EQ(t.wavefronts, 4u + 32 + 4);
    EXPECT_EQ(t.ideal, 12u);
    EXPECT_EQ(t.tensor, 1u);
    EXPECT_EQ(t.shuffle, 1u);
    EXPECT_EQ(t.thread_instructions, 32u + 32 + 32 + 8);
}

TEST_F(CounterTest, launches_add_up_and_unique_is_of_each) {
    for (int i = 0; i < 3; i++) {
        Counter c(memory, i == 2 ? "other" : "k");
        FakeBlock::line = 0;
        FakeBlock(c, 0).access(0, G, LOAD, x);
    }
    ASSERT_EQ(traffic().size(), 2u);
    EXPECT_EQ(traffic_of("k").read.unique, 8u);
    EXPECT_EQ(traffic_of("k").launches, 2u);
    EXPECT_EQ(traffic_of("k").lines.size(), 1u);
    EXPECT_EQ(traffic_of("").launches, 3u);
    EXPECT_NE(traffic_json(true).find("\"read\": {\"requested\": 256, \"sectors\": 8, \"unique\": 8}"),
              std::string::npos);
}

TEST_F(CounterTest, l2) {
    auto run = [&](L2& l2, uint64_t bytes) { // reads `bytes` twice, writes them once
        return launch(
            [&](Counter& c) {
                FakeBlock b(c, 0);
                for (int i = 0; i < 2; i++)
                    for (uint64_t at = 0; at < bytes; at += 128) b.access(0, G, LOAD, x + at);
                for (uint64_t at = 0; at < bytes; at += 128) b.access(0, G, STORE, x + at);
                l2.flush();
            },
            &l2);
    };
    for (Replacement r : {Replacement::lru, Replacement::fifo, Replacement::random}) {
        L2 large({.bytes = 1 << 20, .replacement = r});
        Traffic t = run(large, 1 << 15);
        EXPECT_EQ(t.l2.dram_read, 1u << 15);
        EXPECT_EQ(t.l2.dram_written, 1u << 15);
        EXPECT_EQ(t.l2.read_hits, (1u << 15) / 32);
    }
    L2 one({.bytes = 4096, .ways = 32}); // one set: the second pass finds nothing
    EXPECT_EQ(run(one, 8192).l2.dram_read, 2u * 8192);
}
