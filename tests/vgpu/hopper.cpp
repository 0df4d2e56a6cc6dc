// sm_90a: tensor copies into swizzled tiles, mbarriers, products of a warpgroup, clusters.
#include <bit>
#include <random>

#include "tests/vgpu/ptx_kernel.h"
#include "tools/vgpu/machine/tensor_map.h"

namespace vgpu {
namespace {

float value(uint16_t bf16) { return std::bit_cast<float>(uint32_t(bf16) << 16); }

/// Small integers as bf16, so that sums are exact.
std::vector<uint16_t> numbers(size_t n, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<uint16_t> v(n);
    for (uint16_t& x : v) x = uint16_t(std::bit_cast<uint32_t>(float(int(random() % 13) - 6)) >> 16);
    return v;
}

/// A row-major matrix of bf16, copied by boxes.
TensorMap map_of(const std::vector<uint16_t>& m, uint64_t rows, uint64_t columns, uint16_t box_rows,
                 uint16_t box_columns, uint8_t swizzle) {
    TensorMap t;
    t.address = reinterpret_cast<uint64_t>(m.data()), t.rank = 2, t.element = 2, t.swizzle = swizzle;
    t.extent[0] = columns, t.extent[1] = rows, t.stride[0] = columns * 2;
    t.box[0] = box_columns, t.box[1] = box_rows, t.step[0] = t.step[1] = 1;
    return t;
}

/// D (64 x 16) = A (64 x 64) B (64 x 16): both operands by TMA, 4 wgmma of 16 k. `a_rows`: A lies as
/// [k][row].
std::string product_text(const std::string& swizzle_bits, uint32_t stride, uint32_t step, bool a_rows,
                         const char* wait) {
    std::string text = R"(.shared .align 1024 .b8 tiles[16384]; .shared .align 8 .b8 bar[8];
.visible .entry k(.param .align 64 .b8 ma[128], .param .align 64 .b8 mb[128], .param .u64 out) {
    .reg .b32 %t, %r<8>; .reg .b64 %o, %w, %da, %db, %pa, %pb, %base; .reg .f32 %d<8>; .reg .pred %p;
    mov.u32 %t, %tid.x; mov.u32 %r0, bar; mov.u32 %r1, tiles; add.u32 %r2, %r1, 8192; mov.u32 %r3, 0;
    mov.b64 %pa, ma; cvta.param.u64 %pa, %pa; mov.b64 %pb, mb; cvta.param.u64 %pb, %pb;
    setp.ne.u32 %p, %t, 0; @%p bra READY;
    mbarrier.init.shared::cta.b64 [%r0], 1; fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 10240;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%pa, {%r3, %r3}], [%r0];
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r2], [%pb, {%r3, %r3}], [%r0];
READY: bar.sync 0;
AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %p, [%r0], 0; @!%p bra AGAIN;
)";
    for (int k = 0; k < 8; k++) text += "mov.f32 %d" + std::to_string(k) + ", 0f00000000; ";
    std::string high = "shl.b64 %w, %base, 62; ";
    for (int k = 0; k < 4; k++) {
        auto descriptor = [&](const char* name, const char* tile, uint32_t advance, uint32_t to_next) {
            return "add.u32 %r4, " + std::string(tile) + ", " + std::to_string(advance) +
                   "; shr.u32 %r4, %r4, 4; cvt.u64.u32 " + name + ", %r4; " + "or.b64 " + name + ", " + name +
                   ", " + std::to_string((uint64_t(to_next >> 4) << 32) | 1ull << 16) + "; mov.u64 %base, " +
                   swizzle_bits + "; " + high + "or.b64 " + name + ", " + name + ", %w;\n";
        };
        text += descriptor("%da", "%r1", a_rows ? uint32_t(k) * 2 * stride : uint32_t(k) * step, stride);
        text += descriptor("%db", "%r2", uint32_t(k) * step, stride);
        text += "wgmma.fence.sync.aligned;\nwgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
                "{%d0,%d1,%d2,%d3,%d4,%d5,%d6,%d7}, %da, %db, 1, 1, 1, " +
                std::string(a_rows ? "1" : "0") + ", 0;\n";
    }
    text += "wgmma.commit_group.sync.aligned; " + std::string(wait) +
            "\nld.param.u64 %o, [out]; mul.wide.u32 %w, %t, 32; add.s64 %o, %o, %w;\n"
            "st.global.v4.f32 [%o], {%d0,%d1,%d2,%d3}; st.global.v4.f32 [%o+16], {%d4,%d5,%d6,%d7};\nret; }";
    return module_text(text);
}

void check_product(uint8_t swizzle, const char* bits, uint32_t stride, bool a_rows) {
    auto a = numbers(64 * 64, 1), b = numbers(16 * 64, 2); // b: [column][k]
    for (uint64_t seed : {0, 5}) {
        std::vector<float> out(128 * 8, -1);
        Kernel{.block = {128},
               .seed = seed}(product_text(bits, stride, 32, a_rows, "wgmma.wait_group.sync.aligned 0;"),
                             Arguments()
                                 .add(map_of(a, 64, 64, 64, 64, swizzle))
                                 .add(map_of(b, 16, 64, 16, 64, swizzle))
                                 .add(out.data()));
        for (int t = 0; t < 128; t++) {
            for (int i = 0; i < 8; i++) { // "D fragment layout of wgmma.m64nNk16"
                int row = t / 32 * 16 + t % 32 / 4 + (i & 2 ? 8 : 0),
                    column = i / 4 * 8 + t % 4 * 2 + (i & 1);
                float sum = 0;
                for (int k = 0; k < 64; k++)
                    sum += value(a[size_t(a_rows ? k * 64 + row : row * 64 + k)]) *
                           value(b[size_t(column * 64 + k)]);
                ASSERT_EQ(out[size_t(t * 8 + i)], sum) << "thread " << t << " element " << i;
            }
        }
    }
    EXPECT_TRUE(findings().empty());
    clear_findings();
}

TEST(Hopper, product_of_swizzled_tiles) { check_product(128, "1", 1024, false); }
TEST(Hopper, product_with_dense_rows) { check_product(128, "1", 1024, true); }

TEST(Hopper, product_not_waited_for_is_found) {
    auto a = numbers(64 * 64, 1), b = numbers(16 * 64, 2);
    std::vector<float> out(128 * 8, -1);
    Kernel{.block = {128}}(
        product_text("1", 1024, 32, false, ""),
        Arguments().add(map_of(a, 64, 64, 64, 64, 128)).add(map_of(b, 16, 64, 16, 64, 128)).add(out.data()));
    ASSERT_FALSE(findings().empty());
    EXPECT_EQ(findings()[0].fault, Fault::copy_not_waited);
    EXPECT_EQ(out[0], 0); // not computed yet
    clear_findings();
}

/// Boxes over the edge are filled with zero; negative coordinates too.
TEST(Hopper, tensor_copies_stop_at_the_edge) {
    auto a = numbers(5 * 16, 3);
    const char* text = R"(.shared .align 128 .b8 tile[256]; .shared .align 8 .b8 bar[8];
.visible .entry k(.param .align 64 .b8 m[128], .param .u64 out) { .reg .b32 %t, %r<4>, %x, %y; .reg .b64 %o, %w, %p; .reg .b16 %v; .reg .pred %q;
    mov.u32 %t, %tid.x; mov.u32 %r0, bar; mov.u32 %r1, tile; mov.b64 %p, m; mov.u32 %x, -8; mov.u32 %y, 2;
    setp.ne.u32 %q, %t, 0; @%q bra READY;
    mbarrier.init.shared.b64 [%r0], 1; mbarrier.arrive.expect_tx.shared.b64 %w, [%r0], 256;
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%p, {%x, %y}], [%r0];
READY: bar.sync 0;
AGAIN: mbarrier.try_wait.parity.shared.b64 %q, [%r0], 0; @!%q bra AGAIN;
    shl.b32 %r2, %t, 1; add.u32 %r2, %r2, %r1; ld.shared.b16 %v, [%r2];
    ld.param.u64 %o, [out]; mul.wide.u32 %w, %t, 2; add.s64 %o, %o, %w; st.global.b16 [%o], %v; ret; })";
    std::vector<uint16_t> out(128);
    Kernel{.block = {128}}(module_text(text), Arguments().add(map_of(a, 5, 16, 8, 16, 0)).add(out.data()));
    for (int r = 0; r < 8; r++) {
        for (int c = 0; c < 16; c++)
            EXPECT_EQ(out[size_t(r * 16 + c)], r + 2 < 5 && c >= 8 ? a[size_t((r + 2) * 16 + c - 8)] : 0)
                << r << " " << c;
    }
    EXPECT_TRUE(findings().empty());
}

/// Each block writes its number into its neighbour's shared memory.
TEST(Hopper, blocks_of_a_cluster_share_memory) {
    const char* text = R"(.shared .align 8 .b8 cell[8];
.visible .entry k(.param .u64 out) { .reg .b32 %c, %n, %r, %x, %b; .reg .b64 %o, %w;
    mov.u32 %c, %cluster_ctarank; mov.u32 %n, %cluster_nctarank; add.u32 %r, %c, 1; rem.u32 %r, %r, %n; mov.u32 %x, cell;
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    mapa.shared::cluster.u32 %x, %x, %r; mov.u32 %b, %ctaid.x; st.shared::cluster.u32 [%x], %b;
    barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
    ld.shared.u32 %x, [cell]; ld.param.u64 %o, [out]; mul.wide.u32 %w, %b, 4; add.s64 %o, %o, %w; st.global.u32 [%o], %x; ret; })";
    for (uint64_t seed : {0, 4}) {
        std::vector<uint32_t> out(8);
        Kernel{.grid = {8}, .block = {64}, .seed = seed, .cluster = {4}}(module_text(text),
                                                                         Arguments().add(out.data()));
        for (uint32_t b = 0; b < 8; b++) EXPECT_EQ(out[b], b / 4 * 4 + (b + 3) % 4);
    }
    EXPECT_TRUE(findings().empty());
}

TEST(Hopper, a_wait_in_vain_is_a_deadlock) {
    Kernel{.block = {32}}(module_text(R"(.shared .align 8 .b8 bar[8]; .visible .entry k() { .reg .pred %p;
        mbarrier.init.shared.b64 [bar], 33; bar.warp.sync -1; AGAIN: mbarrier.try_wait.parity.shared.b64 %p, [bar], 0; @!%p bra AGAIN; ret; })"),
                          {});
    ASSERT_EQ(findings().size(), 1u);
    EXPECT_EQ(findings()[0].fault, Fault::deadlock);
    clear_findings();
}

} // namespace
} // namespace vgpu
