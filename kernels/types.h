// The type rules of ops along the mesh axes, checked when an op is recorded; an error names op, tensor and
// axis.
#pragma once
#include <initializer_list>

#include "engine/tape/tape.h"

namespace nvl {

enum class Rule { nonlinear, sum, product }; // f(x..)   x + y   x * y

/// The type of an elementwise (or row-wise) op's result. Nothing is checked along an axis of size 1.
Types join(const char* op, Rule rule, std::initializer_list<Tensor> inputs);
/// Of y = x w^T, which contracts the last dimensions: S(1).S(1) -> P;  R.S(0) -> S(last);  S(0).R -> S(0).
Types join_linear(const Tensor& x, const Tensor& w);
/// Of a sum over everything that varies.
Types summed(Types type);

/// Errors about shapes, in one wording.
void expect_same_shape(const char* op, const Tensor& a, const Tensor& b);

} // namespace nvl
