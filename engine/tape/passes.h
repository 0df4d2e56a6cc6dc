// Passes: each rewrites the list of steps on a tape. They know hazards and phases, no op.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

/// Drops steps whose results reach no persistent or kept buffer. Returns how many.
int eliminate_dead(Tape&);

/// Zero-bubble pipelines: steps which only feed parameter gradients leave `segment` for `segment + 1`.
/// Returns how many.
int split_weight_gradients(Tape&, int segment);

} // namespace nvl
