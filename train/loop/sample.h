// Text from the weights that are being trained: no cache, the whole sequence is computed again for every
// token. Enough to look at samples and to grade short answers of small models; infer/ has the engine for
// everything else.
#pragma once
#include <functional>

#include "train/loop/step.h"

namespace nvl {

struct SampleOptions {
    int64_t max_tokens = 64;
    double temperature = 0; // 0: the most likely token
    uint64_t seed = 0;
    /// Sees every sampled id of sequence i; returns ids that are appended as they are.
    std::function<std::vector<int32_t>(size_t i, int32_t id)> force = nullptr;
    std::function<bool(int32_t id)> ends = nullptr; // the id that ends a sequence; it is kept
};

class Sampler {
public:
    /// Packs sequences into at most `tokens` rows; a sequence never outgrows them.
    Sampler(Model& model, int64_t tokens);
    /// Continues each prompt; returns the new ids.
    std::vector<std::vector<int32_t>> generate(const std::vector<std::vector<int32_t>>& prompts,
                                               const SampleOptions& options);

private:
    static constexpr int64_t MOST_SEQUENCES = 64;
    int64_t capacity_, vocabulary_;
    StepProgram program_;
};

} // namespace nvl
