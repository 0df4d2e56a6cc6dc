// A gated linear unit's middle: the activation of one half times the other.    Shazeer 2020, arXiv:2002.05202
//
//   forward    y = f(g) u        backward   dg = dy u f'(g)      du = dy f(g)
//
// g, u, y  (..., F), equal; rows may be strided, so g and u may be two halves of one (T, 2F) product. swiglu
// is f = silu, geglu f = gelu. f(g) is computed again in backward instead of kept. floor  forward moves 3
// elements, backward 5 per element.
#pragma once
#include "kernels/pointwise/activation.h"

namespace nvl {

extern std::array<Kernel<void(Out y, In g, In u)>, ACTIVATIONS> gated_forward;
extern std::array<Kernel<void(Acc dg, Acc du, In dy, In g, In u)>, ACTIVATIONS> gated_backward;

Tensor gated(Activation f, Tensor g, Tensor u);
/// Of one tensor (..., 2F): the gate is the first half.
Tensor gated(Activation f, Tensor gu);
inline Tensor swiglu(Tensor g, Tensor u) { return gated(Activation::silu, g, u); }
inline Tensor swiglu(Tensor gu) { return gated(Activation::silu, gu); }
inline Tensor geglu_tanh(Tensor g, Tensor u) { return gated(Activation::gelu_tanh, g, u); }
inline Tensor geglu_erf(Tensor g, Tensor u) { return gated(Activation::gelu_erf, g, u); }

} // namespace nvl
