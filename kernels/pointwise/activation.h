// The nonlinear functions of MLPs and gates.
//
//   silu       x s(x), s the logistic function                       Elfwing et al. 2017, arXiv:1702.03118
//   gelu_erf   x Phi(x), Phi the normal distribution's               Hendrycks & Gimpel 2016,
//   arXiv:1606.08415 gelu_tanh  x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3)   its approximation,
//   GPT-2's "gelu_new";
//              computed as x s(2u), the same function, accurate for negative x too
//   quick_gelu x s(1.702 x)      relu2  max(x, 0)^2, So et al. 2021, arXiv:2109.08668      relu, sigmoid,
//   tanh
//
//   forward    y = f(x)          backward   dx = dy f'(x)
//
// x, y  any shape, equal. Backward reads x, so y need not be kept.
// floor  forward moves 2 elements, backward 3 per element: memory bound with vector exp (kernels/cpu/math.h).
#pragma once
#include <string>

#include "engine/tape/tape.h"

namespace nvl {

enum class Activation : uint8_t { silu, gelu_tanh, gelu_erf, quick_gelu, relu2, relu, sigmoid, tanh };
constexpr size_t ACTIVATIONS = 8;
/// By the name in a checkpoint's configuration: "silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu2", ...
Activation activation_named(const std::string& name);

extern std::array<Kernel<void(Out y, In x)>, ACTIVATIONS> activation_forward;
extern std::array<Kernel<void(Acc dx, In dy, In x)>, ACTIVATIONS> activation_backward;

Tensor activation(Activation f, Tensor x);
inline Tensor silu(Tensor x) { return activation(Activation::silu, x); }
inline Tensor gelu_tanh(Tensor x) { return activation(Activation::gelu_tanh, x); }
inline Tensor gelu_erf(Tensor x) { return activation(Activation::gelu_erf, x); }
inline Tensor relu2(Tensor x) { return activation(Activation::relu2, x); }
inline Tensor sigmoid(Tensor x) { return activation(Activation::sigmoid, x); }

} // namespace nvl
