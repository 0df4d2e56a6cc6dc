// Between block-quantised bytes and numbers. The block formats and their formulas: blocks.h.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/io/block_format.h"

namespace nvl {

/// F32 F16 BF16 F64, the integers, Q4_0 Q4_1 Q5_0 Q5_1 Q8_0, Q2_K to Q6_K, Q8_K, IQ4_NL, IQ4_XS, MXFP4.
bool can_dequantize(BlockType t);

/// Writes the n elements that `bytes` holds (n a multiple of the block's elements, bytes exactly theirs).
/// Parallel over blocks; floor: read bytes + write 4n. To another float type each value is rounded once more.
void dequantize(BlockType t, std::span<const std::byte> bytes, int64_t n, float* out);
void dequantize(BlockType t, std::span<const std::byte> bytes, int64_t n, Dtype to, void* out);

/// The format's reference rounding, for Q8_0, Q4_0, Q4_1, F32, F16 and BF16:
///   Q8_0  d = max|x| / 127                            q = round_half_away(x / d)
///   Q4_0  d = (the x of largest magnitude) / -8       q = min(15, trunc(x / d + 8.5))
///   Q4_1  d = (max - min) / 15, m = min               q = min(15, trunc((x - m) / d + 0.5))
/// in f32, where x / d is x times 1 / d and each operation rounds; d and m become f16 afterwards. x must be
/// finite, and d and m must fit into f16.
void quantize(BlockType t, const float* x, int64_t n, void* out);
std::vector<std::byte> quantize(BlockType t, std::span<const float> x);

} // namespace nvl
