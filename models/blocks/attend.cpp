#include "models/blocks/attend.h"

#include "kernels/attention/paged.h"

namespace nvl {

Tensor attend(Tensor q, Tensor k, Tensor v, const Batch& batch, int64_t layer,
              const AttentionOptions& options, Tensor sinks) {
    if (!batch.cache) {
        AttentionOptions counted = options;
        counted.length = batch.row_length;
        return attention(q, k, v, batch.sequence_starts, counted, sinks);
    }
    Cache& cache = *batch.cache;
    Tensor& keys = cache.k.at(size_t(layer));
    Tensor& values = cache.v.at(size_t(layer));
    keys = kv_append(keys, k, cache.slots);
    values = kv_append(values, v, cache.slots);
    return attention_paged(q, keys, values, cache.page_table, cache.query_starts, cache.context_lengths,
                           options, sinks);
}

} // namespace nvl
