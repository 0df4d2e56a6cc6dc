// Muon: momentum, orthogonalised by Newton-Schulz.                 Jordan et al. 2024,
// kellerjordan.github.io/posts/muon
//
//   m += (1 - momentum) (clip g - m)        u = g + momentum (m - g) if nesterov, else m
//   X = u / max(|u|_F, eps)   (transposed if it has more rows than columns)
//   5 times:  A = X X^T    X = a X + (b A + c A A) X          (a, b, c) = (3.4445, -4.7750, 2.0315)
//   w = (1 - lr weight_decay) w - lr adjust X
//   adjust   original         sqrt(max(1, rows / cols))
//            match_rms_adamw  0.2 sqrt(max(rows, cols)): updates as large as AdamW's, arXiv:2502.16982
//
// w, g, m (rows, cols), contiguous, or (E, rows, cols): each matrix of a stack on its own; m and masters are
// f32 (f64 in tests). X is held in f32 and multiplied in `products`: bf16 (twice as fast, what the method was
// published with) or f32. Singular values go to some [0.7, 1.2], not to 1: the coefficients trade accuracy
// for slope at zero. floor  5 x (4 s^2 l + 2 s^3) FLOPs, s the smaller and l the larger side; A and A A are
// symmetric, of which some 60 % is computed.
#pragma once
#include "kernels/optim/step.h"

namespace nvl {

enum class MuonAdjust : uint8_t { original, match_rms_adamw };
MuonAdjust muon_adjust_from(const std::string& name);

struct MuonOptions {
    bool nesterov = true;
    int iterations = 5;
    double a = 3.4445, b = -4.7750, c = 2.0315, norm_eps = 1e-7;
    MuonAdjust adjust = MuonAdjust::original;
    Dtype products = Dtype::bf16; // f32 and f64 parameters: also f32 or f64
};
struct MuonState {
    Tensor m, master; // master: empty if w itself is f32 or f64
};
MuonState muon_state(Store& store, const Tensor& w);

/// low, poly and gram (s, s) are held in the type of the products, square (s, s) as x.
extern Kernel<void(InOut x, Out low, Out gram, Out square, Out poly, MuonOptions)> newton_schulz_kernel;
extern Kernel<void(InOut m, Out u, In g, In step, In clip, bool nesterov)> muon_momentum;
extern Kernel<void(InOut w, In u, In step, In clip, MuonAdjust)> muon_apply;
extern Kernel<void(InOut master, Out w, In u, In step, In clip, MuonAdjust)> muon_apply_master;

/// Updates the matrix w by its gradient, scaled by `clip` (global_norm). OptimStep's beta1 is the momentum.
void muon(Tensor w, const MuonState& state, Tensor gradient, Tensor step, Tensor clip,
          const MuonOptions& options = {});

/// The Newton-Schulz iteration alone: x (rows, cols) f32 or f64 -> about the nearest semi-orthogonal matrix.
Tensor newton_schulz(Tensor x, const MuonOptions& options = {});

} // namespace nvl
