// The modifiers that ld, st, atom and red share.
#pragma once
#include "tools/vgpu/machine/decoder.h"

namespace vgpu {

/// Takes order, scope, state space and cache hints; none of the hints changes what is computed.
Memory memory_of(Modifiers&);
/// Bytes of .b8 ... .f64 (and .b128); 0 if it is no type.
uint32_t bytes_of_type(std::string_view type);

} // namespace vgpu
