// Places the virtual registers of a function in the register file. nvcc's PTX has thousands of them, each
// written about once; by liveness they fit into the few hundred that the hardware would use, which the
// host's cache holds. Lanes of a warp may be at different places, but a register is used lane by lane, so
// the liveness of one thread is what counts.
#include <algorithm>
#include <map>

#include "tools/vgpu/machine/decoder.h"

namespace vgpu {
namespace {

uint32_t bytes_in_file(ptx::Width w) { return w == ptx::Width::predicate ? 4 : 32 * uint32_t(w); }

} // namespace

std::vector<int32_t> place_registers(const ptx::Function& f, uint32_t& bytes, uint32_t& alive) {
    std::vector<int32_t> place(f.registers.size());
    for (size_t r = 0; r < f.registers.size(); r++) {
        uint32_t n = bytes_in_file(f.registers[r].width);
        uint32_t align = n == 4 ? 4 : 64;
        bytes = (bytes + align - 1) / align * align;
        place[r] = int32_t(bytes);
        bytes += n;
    }
    alive = uint32_t(f.registers.size());
    return place;
}

} // namespace vgpu
