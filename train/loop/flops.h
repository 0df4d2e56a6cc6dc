// How the FLOPs and the memory of a training run are made up: what `plan` prints.
//
//   FLOPs per token (forward and backward) = 6 N + 12 H D sum over layers of min(window, T)
//
// N counts the elements of every weight that multiplies the token stream: all matrices and the head (the
// embedding where it is tied), not look-ups and vectors. A weight costs a multiply and an add per token in
// the forward pass and twice that in the backward pass (once for dx, once for dw): 6. Attention multiplies q
// k^T and p v: 2 D each per head and visible token, 4 H D forward, times 3. By convention the whole row of T
// is counted, not its causal half, and recomputing is not: it is work, not progress. H is the number of query
// heads.
#pragma once
#include "models/model.h"
#include "train/loop/config.h"

namespace nvl {

struct WeightGroup {
    std::string name; // layers' numbers replaced by *
    Role role;
    int64_t count = 0, elements = 0; // tensors, and elements of all of them
    Shape shape;
    bool multiplies = false; // part of N
    double active = 1;       // share of it that a token meets
};
std::vector<WeightGroup> weight_groups(Model& model);

/// The answer as text: the formula, its terms for this model, and the worked sum.
std::string explain_flops(Model& model, int64_t row_length);

/// Bytes by kind on one device, from the planned program of a micro-batch.
struct MemoryPlan {
    int64_t weights = 0, gradients = 0, optimizer = 0, activations = 0;
    int64_t total() const { return weights + gradients + optimizer + activations; }
};

/// The plan of a config as text: parameters, FLOPs, memory, time at the measured peak. Takes no memory for
/// weights that it does not touch.
std::string explain_run(const TrainConfig& config);

} // namespace nvl
