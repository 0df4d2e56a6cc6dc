// The machine's instructions against the ISA's formulas: those that tools/hwcheck replays on hardware.
#include <gtest/gtest.h>

#include "tools/hwcheck/goldens.h"
#include "tools/vgpu/vgpu.h"

namespace {

void expect_exact(hwcheck::Golden (*run)()) {
    vgpu::reset(vgpu::Options::from_environment());
    hwcheck::Golden g = run();
    EXPECT_GT(g.cases, 0) << g.name;
    EXPECT_EQ(g.wrong, 0) << g.name;
    EXPECT_TRUE(vgpu::findings().empty()) << g.name;
}

} // namespace

TEST(Oracle, mma_of_one_hot_matrices) { expect_exact(hwcheck::mma_of_one_hot_matrices); }
TEST(Oracle, mma_of_integers) { expect_exact(hwcheck::mma_of_integers); }
TEST(Oracle, ldmatrix) { expect_exact(hwcheck::ldmatrix); }
TEST(Oracle, shuffles) { expect_exact(hwcheck::shuffles); }
TEST(Oracle, copies) { expect_exact(hwcheck::copies); }
