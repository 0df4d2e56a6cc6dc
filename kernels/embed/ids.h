// Reading ids and saying clearly when one is wrong.
#pragma once
#include "engine/tape/tape.h"

namespace nvl {

inline int64_t checked_id(const char* op, const In& ids, int64_t t, int64_t V) {
    int32_t id = ids.as<int32_t>()[t * ids.stride[0]];
    check(id >= 0 && id < V, "%s: id %d at token %ld, the table has %ld rows; expected 0..%ld", op, id,
          long(t), long(V), long(V - 1));
    return id;
}

inline void expect_table(const char* op, const Tensor& table, const Tensor& ids) {
    check(table.shape().rank == 2 && ids.shape().rank == 1 && ids.dtype() == Dtype::i32,
          "%s: expected a table (V,C) and ids (T) of i32, found %s %s and %s %s of %s", op, table.name(),
          table.shape().text().c_str(), ids.name(), ids.shape().text().c_str(), name_of(ids.dtype()));
}

} // namespace nvl
