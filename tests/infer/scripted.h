// A model whose next token is decided by the last one: what generation must do with it is known in advance.
#pragma once
#include <map>

#include "engine/base/rng.h"
#include "kernels/embed/embedding.h"
#include "models/model.h"

namespace nvl::test {

/// logits after token a: 30 at next[a], elsewhere small random numbers.
class Scripted : public Model {
public:
    Scripted(int64_t vocabulary, int64_t context, const std::map<int32_t, int32_t>& next, float spike = 30) {
        dims = {0, vocabulary, 1, 1, 1, 1, vocabulary, context, {}};
        allocate(store_, Dtype::f32, false);
        for (int64_t i = 0; i < vocabulary; i++) {
            host<float>(head_)[i * vocabulary + i] = 1;
            for (int64_t k = 0; k < vocabulary; k++)
                host<float>(table_)[i * vocabulary + k] =
                    float(Random(5).normal(uint64_t(i * vocabulary + k)));
        }
        for (auto [from, to] : next) host<float>(table_)[from * vocabulary + to] = spike;
    }
    void each(const Visit& visit) override {
        visit({"table", {dims.V, dims.V}, Role::embedding}, table_);
        visit({"head", {dims.V, dims.V}, Role::head}, head_);
    }
    Tensor hidden(const Batch& batch) override { return embedding(table_, batch.tokens); }
    Tensor head() const override { return head_; }

private:
    Store store_;
    Tensor table_, head_;
};

/// a -> b -> c ... for the ids of a text or a list.
inline std::map<int32_t, int32_t> chain(const std::vector<int32_t>& ids) {
    std::map<int32_t, int32_t> next;
    for (size_t i = 0; i + 1 < ids.size(); i++) next[ids[i]] = ids[i + 1];
    return next;
}

} // namespace nvl::test
