// Ids outside the table, at run time.
#include <gtest/gtest.h>

#include "kernels/embed/embedding.h"
#include "kernels/embed/embedding_add_positions.h"

using namespace nvl;

static std::string error_of(int32_t id, int32_t position) {
    Store store;
    Tensor table = store.parameter("wte", {10, 4}, Dtype::f32),
           places = store.parameter("wpe", {3, 4}, Dtype::f32);
    Tensor ids = store.tensor("ids", {2}, Dtype::i32), positions = store.tensor("positions", {2}, Dtype::i32);
    host<int32_t>(ids)[0] = 9, host<int32_t>(ids)[1] = id;
    host<int32_t>(positions)[0] = 2, host<int32_t>(positions)[1] = position;
    Tape t(Tape::eager);
    Recording recording(t);
    try {
        embedding_add_positions(table, ids, places, positions);
    } catch (const Error& e) {
        return e.what();
    }
    return "";
}

TEST(Embedding, OutOfRangeIdsAreNamed) {
    EXPECT_EQ(error_of(0, 0), "");
    EXPECT_EQ(error_of(10, 0), "embedding: id 10 at token 1, the table has 10 rows; expected 0..9");
    EXPECT_EQ(error_of(-1, 0), "embedding: id -1 at token 1, the table has 10 rows; expected 0..9");
    EXPECT_EQ(error_of(0, 3), "position embedding: id 3 at token 1, the table has 3 rows; expected 0..2");
}

TEST(Embedding, IdsMustBeIntegers) {
    Store store;
    Tensor table = store.parameter("wte", {10, 4}, Dtype::f32), ids = store.tensor("ids", {2}, Dtype::f32);
    Tape t;
    Recording recording(t);
    EXPECT_THROW(embedding(table, ids), Error);
}
