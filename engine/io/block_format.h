// The element and block types of GGUF files: names and sizes. What the bytes mean is in kernels/quant.
#pragma once
#include <cstdint>
#include <string>

namespace nvl {

/// Numbers are those of the file format; the gaps are types that the format has withdrawn.
// clang-format off
enum class BlockType : uint32_t {
    f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8, q8_1 = 9,
    q2_k = 10, q3_k = 11, q4_k = 12, q5_k = 13, q6_k = 14, q8_k = 15,
    iq2_xxs = 16, iq2_xs = 17, iq3_xxs = 18, iq1_s = 19, iq4_nl = 20, iq3_s = 21, iq2_s = 22, iq4_xs = 23,
    i8 = 24, i16 = 25, i32 = 26, i64 = 27, f64 = 28, iq1_m = 29, bf16 = 30, tq1_0 = 34, tq2_0 = 35, mxfp4 = 39,
};
// clang-format on

struct BlockFormat {
    BlockType type;
    const char* name; // "Q4_K"
    int64_t elements; // of one block
    int64_t bytes;    // of one block
};

const BlockFormat* find_block_format(uint32_t type); // null for a number that is no type
const BlockFormat& block_format(BlockType t);
BlockType block_type_from(
    const std::string& name); // "q4_k" or "Q4_K"; an unknown name is an error that lists the known
inline const char* name_of(BlockType t) { return block_format(t).name; }
/// Bytes of n elements; n is a multiple of the block's elements.
int64_t block_bytes(BlockType t, int64_t n);

} // namespace nvl
