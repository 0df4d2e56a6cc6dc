// The ISA's formulas against CuTe's layouts: two sources that do not know of each other. CuTe's headers come
// with `pip install nvidia-cutlass==4.2.0.0`.
#include <gtest/gtest.h>

#include "tools/hwcheck/instructions.h"

#ifdef VGPU_CUTE
#include <cute/tensor.hpp>

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>

TEST(Cute, mma_m16n8k16) {
    using Traits = cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;
    typename Traits::ALayout a; // (lane, value) -> row + 16 * column, and so on
    typename Traits::BLayout b;
    typename Traits::CLayout c;
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 8; i++) {
            isa::At at = isa::a_16816(lane, i);
            EXPECT_EQ(int(a(lane, i)), at.row + 16 * at.column);
        }
        for (int i = 0; i < 4; i++) {
            isa::At kn = isa::b_16816(lane, i), at = isa::c_16816(lane, i);
            EXPECT_EQ(int(b(lane, i)), kn.column + 8 * kn.row);
            EXPECT_EQ(int(c(lane, i)), at.row + 16 * at.column);
        }
    }
}

/// The place in the source, lane * 128 + bit, of what arrives at `bit` of a lane's registers.
template <class Traits> static int source_of(int lane, int bit) {
    typename Traits::SrcLayout source;
    typename Traits::DstLayout target;
    for (int l = 0; l < 32; l++)
        for (int b = 0; b < 128; b += 16)
            if (int(source(l, b)) == int(target(lane, bit))) return l * 128 + b;
    return -1;
}

TEST(Cute, ldmatrix_x4) {
    for (int lane = 0; lane < 32; lane++)
        for (int matrix = 0; matrix < 4; matrix++)
            for (int h = 0; h < 2; h++) {
                auto place = [&](isa::At at) { return (matrix * 8 + at.row) * 128 + at.column * 16; };
                int bit = matrix * 32 + h * 16;
                EXPECT_EQ(source_of<cute::Copy_Traits<cute::SM75_U32x4_LDSM_N>>(lane, bit),
                          place(isa::ldmatrix(lane, h)));
                EXPECT_EQ(source_of<cute::Copy_Traits<cute::SM75_U16x8_LDSM_T>>(lane, bit),
                          place(isa::ldmatrix_trans(lane, h)));
            }
}
#else
TEST(Cute, layouts) { GTEST_SKIP() << "CuTe's headers are not here: pip install nvidia-cutlass==4.2.0.0"; }
#endif
