// The last step of every family's attention: over the batch's own tokens, or over the cache of an inference
// batch.
#pragma once
#include "kernels/attention/attention.h"
#include "models/blocks/batch.h"

namespace nvl {

/// q (T, H, D), k (T, G, D), v (T, G, Dv) -> (T, H, Dv); sinks (H) or none. With a cache, k and v are
/// appended to that of `layer` first.
Tensor attend(Tensor q, Tensor k, Tensor v, const Batch& batch, int64_t layer,
              const AttentionOptions& options, Tensor sinks = {});

} // namespace nvl
