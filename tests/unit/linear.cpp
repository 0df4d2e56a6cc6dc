// Prepacked weights give the bits of plain ones, for any number of rows; what they refuse.
#include <gtest/gtest.h>

#include "engine/base/rng.h"
#include "engine/plan/program.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/packed.h"

using namespace nvl;

template <class X> static void compare_packed(bool in_out) {
    constexpr int64_t T = 19, C = 70, F = 45;
    Store store;
    Tensor x = store.tensor("x", {T, C}, dtype_of<X>), b = store.parameter("b", {F}, dtype_of<X>),
           w = store.parameter("w", in_out ? Shape{C, F} : Shape{F, C}, dtype_of<X>);
    for (const Tensor& t : {x, w, b})
        for (int64_t i = 0; i < t.shape().numel(); i++)
            host<X>(t)[i] = X(float(Random(1, t.name()).normal(uint64_t(i))));
    if (in_out) w = transpose(w, 0, 1);
    PackedWeights packed;
    packed.add(w), packed.add(w);
    EXPECT_GE(packed.bytes(), F * C * int64_t(sizeof(X)));
    EXPECT_LT(packed.bytes(), 2 * 64 * (C + 16) * int64_t(sizeof(X))); // once
    Tape t;
    Recording recording(t);
    t.no_grad();
    Tensor rows = with_rows(x, t.capacity(T)), plain = t.keep(linear(rows, w, b));
    UsePacked use(packed);
    Tensor fast = t.keep(linear(rows, w, b));
    EXPECT_STREQ(t.steps.back().kernel, "linear_packed_bias");
    Program program(t);
    std::vector<X> all;
    for (int64_t n : {T, int64_t(1), int64_t(2), int64_t(5), int64_t(16)}) {
        program.run({.counts = {n}});
        if (all.empty()) all.assign(program.data<X>(plain), program.data<X>(plain) + T * F);
        for (int64_t i = 0; i < n * F; i++) {
            ASSERT_EQ(float(program.data<X>(fast)[i]), float(all[size_t(i)])) << n << " rows, element " << i;
            ASSERT_EQ(float(program.data<X>(plain)[i]), float(all[size_t(i)])) << n << " rows, element " << i;
        }
    }
}

TEST(Linear, PackedGivesTheSameBits) {
    for (bool in_out : {false, true}) compare_packed<float>(in_out), compare_packed<bf16>(in_out);
}

TEST(Linear, PackedTakesNoGradients) {
    Store store;
    Tensor x = store.tensor("x", {2, 8}, Dtype::f32), w = store.parameter("w", {4, 8}, Dtype::f32);
    PackedWeights packed;
    packed.add(w);
    EXPECT_THROW(packed.add(store.tensor("v", {4}, Dtype::f32)), Error);
    EXPECT_THROW(packed.add(store.tensor("d", {4, 4}, Dtype::f64)), Error);
    Tape t;
    Recording recording(t);
    UsePacked use(packed);
    EXPECT_THROW(linear(x, w), Error);
    EXPECT_FALSE(packed.find(slice(w, 0, 0, 2)));
}
