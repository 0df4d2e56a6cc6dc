// The checker, told by hand what a kernel does. Each bug has its clean twin.
#include <gtest/gtest.h>

#include "tests/vgpu/fake.h"
#include "tools/vgpu/memory/checker.h"

using namespace vgpu;

namespace {
constexpr Space G = Space::global, S = Space::shared;
constexpr Kind LOAD = Kind::load, STORE = Kind::store, ATOMIC = Kind::atomic;

struct CheckerTest : testing::Test {
    DeviceMemory memory{{.limit = 1 << 20}};
    uint64_t x = memory.allocate(4096);
    CheckerTest() { clear_findings(); }
    ~CheckerTest() { clear_findings(); }
    void written() { memory.mark_written(x, 4096); }

    /// Runs `story` as a launch and says what was found.
    template <class F> std::string launch(F story) {
        {
            Checker checker(memory);
            story(checker);
        }
        return faults();
    }
};
} // namespace

TEST_F(CheckerTest, bounds) {
    written();
    uint32_t lanes = 0;
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, LOAD, x + 4096 - 128); }), "");
    EXPECT_EQ(launch([&](Checker& c) { lanes = FakeBlock(c, 0).access(0, G, LOAD, x + 4096 - 124); }),
              "OUT_OF_BOUNDS");
    EXPECT_EQ(lanes, 0x7fffffffu);
    EXPECT_EQ(launch([&](Checker& c) { lanes = FakeBlock(c, 0).access(0, G, STORE, 0); }), "OUT_OF_BOUNDS");
    EXPECT_EQ(lanes, 0u);
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, S, STORE, 1024 - 124); }), "OUT_OF_BOUNDS");
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, LOAD, x + 2, 4, 4, 1); }), "MISALIGNED");
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, LOAD, x + 8, 16, 16); }), "MISALIGNED");
    ASSERT_TRUE(memory.release(x));
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, LOAD, x); }), "USE_AFTER_FREE");
}

TEST_F(CheckerTest, uninitialised) {
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, LOAD, x); }), "UNINITIALISED");
    memory.mark_written(x, 64);
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, LOAD, x, 4, 4, 0xffff); }), "");
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, LOAD, x, 4, 4, 0x1ffff); }),
              "UNINITIALISED");
    EXPECT_EQ(launch([&](Checker& c) {
                  FakeBlock b(c, 0);
                  b.access(0, G, STORE, x + 128, 2, 2);
                  b.access(0, G, LOAD, x + 128, 2, 2);
              }),
              "");
    EXPECT_EQ(memory.written(x + 128, 4096 - 128), 64u);
    auto shared = [&](Kind first) {
        return launch([&](Checker& c) {
            FakeBlock b(c, 0);
            if (first == STORE) b.access(0, S, STORE, 0);
            b.access(0, S, LOAD, 0);
        });
    };
    EXPECT_EQ(shared(STORE), "");
    EXPECT_EQ(shared(LOAD), "UNINITIALISED");
    // What an earlier block left in shared memory is not this block's.
    EXPECT_EQ(launch([&](Checker& c) {
                  FakeBlock(c, 0).access(0, S, STORE, 0);
                  FakeBlock(c, 1).access(0, S, LOAD, 0);
              }),
              "UNINITIALISED");
}

TEST_F(CheckerTest, lanes_of_a_warp) {
    auto story = [&](Space space, uint64_t at, uint32_t sync, bool other, uint32_t bytes) {
        return launch([&](Checker& c) {
            FakeBlock b(c, 0);
            b.access(0, space, STORE, at, bytes, bytes);
            if (sync) c.warp_sync(b.warp(0), sync);
            b.access(0, space, LOAD, at + (other ? 31 * bytes : 0), bytes, other ? -uint64_t(bytes) : bytes,
                     other && sync == 0xffff ? 0 : ~0u);
        });
    };
    for (uint32_t bytes : {1, 2, 4, 8, 16}) {
        EXPECT_EQ(story(S, 0, 0, true, bytes), "RACE_SHARED") << bytes;
        EXPECT_EQ(story(S, 0, ~0u, true, bytes), "") << bytes;
        EXPECT_EQ(story(S, 0, 0, false, bytes), "") << bytes;
        EXPECT_EQ(story(G, x, 0, true, bytes), "RACE_GLOBAL") << bytes;
        EXPECT_EQ(story(G, x, ~0u, true, bytes), "") << bytes;
        EXPECT_EQ(story(G, x, 0, false, bytes), "") << bytes;
    }
    auto half = [&](uint32_t reader) { // lanes 0..15 synchronise; lane 0's word is read by another
        return launch([&](Checker& c) {
            FakeBlock b(c, 0);
            b.access(0, S, STORE, 0, 4, 4, 1);
            c.warp_sync(b.warp(0), 0xffff);
            b.access(0, S, LOAD, 0, 4, 0, 1u << reader);
        });
    };
    EXPECT_EQ(half(15), "");
    EXPECT_EQ(half(16), "RACE_SHARED");
}

TEST_F(CheckerTest, one_instruction_two_values) {
    uint32_t value[32] = {};
    auto story = [&] {
        return launch([&](Checker& c) {
            FakeBlock(c, 0).access(0, S, STORE, 0, 4, 0, ~0u, Order::weak,
                                   reinterpret_cast<std::byte*>(value));
        });
    };
    EXPECT_EQ(story(), "");
    value[7] = 1;
    EXPECT_EQ(story(), "RACE_SHARED");
}

TEST_F(CheckerTest, warps_of_a_block) {
    for (auto [space, at, name] :
         {std::tuple(S, uint64_t(0), "RACE_SHARED"), std::tuple(G, x, "RACE_GLOBAL")})
        for (Kind first : {LOAD, STORE})
            for (Kind second : {LOAD, STORE})
                for (bool barrier : {false, true}) {
                    written();
                    std::string found = launch([&](Checker& c) {
                        FakeBlock b(c, 0, 3);
                        b.access(2, space, STORE, at);
                        b.barrier();
                        b.access(0, space, first, at);
                        if (barrier) b.barrier();
                        b.access(1, space, second, at);
                    });
                    bool race = !barrier && (first == STORE || second == STORE);
                    EXPECT_EQ(found, race ? name : "") << int(first) << int(second) << barrier;
                }
    // Three warps read, then one of them writes: the other two are not forgotten.
    for (uint32_t writer : {0, 1, 2})
        for (bool barrier : {false, true})
            EXPECT_EQ(launch([&](Checker& c) {
                          FakeBlock b(c, 0, 3);
                          b.access(0, S, STORE, 0);
                          b.barrier();
                          for (uint32_t w : {0, 1, 2}) b.access(w, S, LOAD, 0);
                          if (barrier) b.barrier();
                          b.access(writer, S, STORE, 0);
                      }),
                      barrier ? "" : "RACE_SHARED");
    // A warp's own scratch, with nothing but __syncwarp, for ever.
    EXPECT_EQ(launch([&](Checker& c) {
                  FakeBlock b(c, 0, 2);
                  for (int i = 0; i < 10; i++) {
                      b.access(0, S, STORE, 0);
                      c.warp_sync(b.warp(0), ~0u);
                      b.access(0, S, LOAD, 124, 4, uint64_t(-4));
                      c.warp_sync(b.warp(0), ~0u);
                  }
              }),
              "");
}

TEST_F(CheckerTest, named_barriers_and_mbarriers) {
    auto named = [&](std::vector<uint32_t> who) {
        return launch([&](Checker& c) {
            FakeBlock b(c, 0, 3);
            b.access(0, S, STORE, 0);
            b.barrier(who);
            b.access(1, S, LOAD, 0);
        });
    };
    EXPECT_EQ(named({0, 1}), "");
    EXPECT_EQ(named({0, 2}), "RACE_SHARED");
    auto mbarrier = [&](uint32_t arriving, uint64_t object) {
        return launch([&](Checker& c) {
            FakeBlock b(c, 0, 2);
            b.access(0, S, STORE, 0, 4, 4, 1);
            c.arrive(b.warp(0), arriving, 512);
            c.acquire(b.warp(1), ~0u, object);
            b.access(1, S, LOAD, 0, 4, 4, 1);
        });
    };
    EXPECT_EQ(mbarrier(1, 512), "");
    EXPECT_EQ(mbarrier(2, 512), "RACE_SHARED"); // another lane arrived
    EXPECT_EQ(mbarrier(1, 520), "RACE_SHARED"); // another mbarrier
}

TEST_F(CheckerTest, blocks_of_a_launch) {
    auto story = [&](Kind first, Kind second) {
        written();
        return launch([&](Checker& c) {
            FakeBlock a(c, 0), b(c, 1);
            a.access(0, G, first, x);
            b.access(0, G, second, x);
        });
    };
    EXPECT_EQ(story(LOAD, LOAD), "");
    EXPECT_EQ(story(STORE, LOAD), "RACE_GLOBAL");
    EXPECT_EQ(story(LOAD, STORE), "RACE_GLOBAL");
    EXPECT_EQ(story(STORE, STORE), "RACE_GLOBAL");
    EXPECT_EQ(story(ATOMIC, ATOMIC), "");
    EXPECT_EQ(story(ATOMIC, LOAD), "RACE_GLOBAL");
    EXPECT_EQ(story(STORE, ATOMIC), "RACE_GLOBAL");
    EXPECT_EQ(launch([&](Checker& c) { // halves of a word
                  FakeBlock(c, 0).access(0, G, STORE, x, 2, 4);
                  FakeBlock(c, 1).access(0, G, STORE, x + 2, 2, 4);
              }),
              "");
    EXPECT_EQ(launch([&](Checker& c) { // 10 blocks read, the first of them writes
                  std::vector<std::unique_ptr<FakeBlock>> blocks;
                  for (int i = 0; i < 10; i++) blocks.push_back(std::make_unique<FakeBlock>(c, i));
                  for (auto& b : blocks) b->access(0, G, LOAD, x);
                  blocks[0]->access(0, G, STORE, x, 4, 4, 1);
              }),
              "RACE_GLOBAL");
    EXPECT_EQ(launch([&](Checker& c) { FakeBlock(c, 0).access(0, G, STORE, x); }) + // launches are ordered
                  launch([&](Checker& c) { FakeBlock(c, 1).access(0, G, STORE, x); }),
              "");
}

TEST_F(CheckerTest, last_block_reduces) {
    auto story = [&](bool fence, bool barrier) {
        written();
        return launch([&](Checker& c) {
            uint64_t counter = x + 2048;
            std::vector<std::unique_ptr<FakeBlock>> blocks;
            for (int i = 0; i < 4; i++) {
                blocks.push_back(std::make_unique<FakeBlock>(c, i, 2));
                FakeBlock& b = *blocks.back();
                b.access(1, G, STORE, x + 128 * i);
                if (barrier) b.barrier();
                if (fence) c.fence(b.warp(0), 1, Scope::gpu);
                b.access(0, G, ATOMIC, counter, 4, 0, 1);
                b.barrier();
            }
            for (int i = 0; i < 4; i++) blocks[3]->access(1, G, LOAD, x + 128 * i);
            blocks[3]->access(0, G, STORE, counter, 4, 0, 1);
        });
    };
    EXPECT_EQ(story(true, true), "");
    EXPECT_NE(story(false, true).find("RACE_GLOBAL"), std::string::npos);
    EXPECT_NE(story(true, false).find("RACE_GLOBAL"), std::string::npos);
}

TEST_F(CheckerTest, flag_between_blocks) {
    auto story = [&](Order release, bool fence_before, Order acquire, bool fence_after) {
        written();
        return launch([&](Checker& c) {
            FakeBlock a(c, 0), b(c, 1);
            a.access(0, G, STORE, x, 4, 4, 1);
            if (fence_before) c.fence(a.warp(0), 1, Scope::gpu);
            a.access(0, G, STORE, x + 2048, 4, 4, 1, release);
            b.access(0, G, LOAD, x + 2048, 4, 4, 1, acquire);
            if (fence_after) c.fence(b.warp(0), 1, Scope::gpu);
            b.access(0, G, LOAD, x, 4, 4, 1);
        });
    };
    EXPECT_EQ(story(Order::release, false, Order::acquire, false), "");
    EXPECT_EQ(story(Order::volatile_, true, Order::volatile_, true), "");
    EXPECT_EQ(story(Order::volatile_, false, Order::volatile_, true), "RACE_GLOBAL");
    EXPECT_EQ(story(Order::relaxed, true, Order::relaxed, false), "RACE_GLOBAL");
    EXPECT_NE(story(Order::weak, true, Order::weak, true), "");
}

TEST_F(CheckerTest, asynchronous_copies) {
    enum { CLEAN, NO_WAIT, EARLY, OVERWRITES, NO_BARRIER };
    auto story = [&](int bug) {
        return launch([&](Checker& c) {
            FakeBlock b(c, 0, 2);
            b.access(0, S, STORE, 0);
            b.barrier();
            b.access(1, S, LOAD, 0);
            if (bug != OVERWRITES) b.barrier();
            b.access(0, S, Kind::copy_issue, 0);
            if (bug == EARLY) b.access(0, S, LOAD, 0);
            if (bug != NO_WAIT) b.access(0, S, Kind::copy_landing, 0);
            if (bug != NO_BARRIER) b.barrier();
            if (bug != NO_WAIT) b.access(1, S, LOAD, 0);
        });
    };
    EXPECT_EQ(story(CLEAN), "");
    EXPECT_EQ(story(NO_WAIT), "COPY_NOT_WAITED");
    EXPECT_EQ(story(EARLY), "COPY_NOT_WAITED");
    EXPECT_EQ(story(OVERWRITES), "RACE_SHARED");
    EXPECT_EQ(story(NO_BARRIER), "RACE_SHARED");
}

TEST_F(CheckerTest, streams) {
    for (bool event : {false, true})
        for (bool copy : {false, true})
            for (bool late : {false, true}) { // whichever runs first
                StreamClocks streams;
                uint32_t s = streams.add_stream(), t = streams.add_stream();
                uint32_t first = streams.operation(s, "launch of a");
                streams.record(1, s);
                if (event) streams.wait(t, 1);
                uint32_t second = streams.operation(t, copy ? "copy" : "launch of b");
                auto a = [&] {
                    Checker c(memory, &streams, first);
                    FakeBlock(c, 0).access(0, G, STORE, x);
                };
                auto b = [&] {
                    if (copy) return streams.touch(second, memory, x, 64, false);
                    Checker c(memory, &streams, second);
                    FakeBlock(c, 0).access(0, G, LOAD, x);
                };
                written();
                if (late && !event)
                    b(), a();
                else
                    a(), b();
                EXPECT_EQ(faults(), event ? "" : "RACE_STREAMS") << copy << late;
            }
    StreamClocks streams; // the host in between
    uint32_t s = streams.add_stream(), t = streams.add_stream();
    uint32_t first = streams.operation(s, "a");
    streams.synchronize_stream(s);
    EXPECT_TRUE(streams.ordered(first, streams.operation(t, "b")));
    EXPECT_FALSE(streams.ordered(streams.operation(s, "c"), streams.operation(t, "d")));
}

TEST_F(CheckerTest, both) {
    DeviceMemory other{{.limit = 1 << 20}};
    uint64_t y = other.allocate(64);
    memory.mark_written(x, 4096);
    {
        Checker a(memory), b(memory);
        Both both(a, b);
        FakeBlock block(both, 0, 2);
        block.access(0, S, STORE, 0);
        block.barrier();
        block.access(1, S, LOAD, 0);
        EXPECT_EQ(block.access(0, G, STORE, y, 4, 4, 3), 3u); // a peer's memory
    }
    EXPECT_EQ(faults(), "");
    EXPECT_EQ(other.written(y, 64), 8u);
}
