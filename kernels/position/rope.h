// Rotary position embedding: pairs of a head's elements turn by an angle proportional to the position.
//                                                                       Su et al. 2021, arXiv:2104.09864
//   angles     a[t, i] = position[t, stream(i)] inv[i]      stored as  scale cos a | scale sin a
//   forward    y1 = x1 cos - x2 sin      y2 = x2 cos + x1 sin
//   backward   the same with -sin
//
// positions  (T) i32, or (T, S) for S streams (text, height, width)      angles  (T, d) f32
// x, y  (T, H, D), d <= D: the first d elements of each head are rotated, the rest copied.
// half         pairs (i, i + d/2): GPT-NeoX, Llama and Qwen checkpoints
// interleaved  pairs (2i, 2i + 1): the paper, DeepSeek
//
// A model computes the angles once per step and hands them to every layer. The angle is the f32 product of
// position and frequency, as in the programs that trained the checkpoints; its cos and sin are exact to f32,
// at any position. floor  2 elements moved per element of x, each way.
#pragma once
#include "engine/tape/tape.h"
#include "kernels/position/rope_table.h"

namespace nvl {

enum class Pairs : uint8_t { half, interleaved };

extern Kernel<void(Out angles, In positions, RopeTable table)> rope_angles_forward;
extern Kernel<void(Out y, In x, In angles, Pairs pairs)> rope_forward;
extern Kernel<void(Acc dx, In dy, In angles, Pairs pairs)> rope_backward;

Tensor rope_angles(Tensor positions, const RopeTable& table);
Tensor rope(Tensor x, Tensor angles, Pairs pairs = Pairs::half);

/// Shared with qknorm_rope: expects x (T, H, D) and angles (T, d <= D).
void expect_heads(const char* op, const Tensor& x, const Tensor& angles);

} // namespace nvl
