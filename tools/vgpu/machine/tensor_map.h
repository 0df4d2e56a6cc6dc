// What a CUtensorMap holds on the virtual GPU: 128 bytes that cuTensorMapEncodeTiled of the look-alike fills
// and cp.async.bulk.tensor reads. (The real one's content is secret.)
#pragma once
#include <cstdint>

namespace vgpu {

struct alignas(64) TensorMap {
    static constexpr uint64_t MAGIC = 0x70616d2075706776; // "vgpu map"
    uint64_t magic = MAGIC;
    uint64_t address = 0;    // device address of element 0
    uint64_t extent[5] = {}; // elements, the innermost dimension first
    uint64_t stride[4] = {}; // bytes, of dimensions 1 to 4 (dimension 0 is dense)
    uint16_t box[5] = {};    // elements that one copy moves
    uint8_t step[5] = {};    // element strides: every step-th element of the box
    uint8_t rank = 0;        // 1 to 5
    uint8_t element = 0;     // bytes: 1, 2, 4, 8
    uint8_t swizzle = 0;     // bytes: 0, 32, 64, 128
    uint8_t nan_outside = 0; // outside of the extent: NaN (for floats) instead of zero
    uint8_t format = 0;      // CUtensorMapDataType
    uint8_t unused[20] = {};
};
static_assert(sizeof(TensorMap) == 128);

/// Where a byte of a swizzled tile lies: 16-byte chunks are XORed with the number of the 128-byte row.
inline uint32_t swizzled(uint32_t address, uint32_t swizzle) {
    uint32_t chunks = swizzle / 16; // 8, 4, 2
    return chunks < 2 ? address : address ^ ((address >> 7 & (chunks - 1)) << 4);
}

} // namespace vgpu
