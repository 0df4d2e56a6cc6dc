// The recorded programs of training: forward and backward of one micro-batch, and the forward alone that
// evaluation runs.
//
//   loss = sum over valid tokens of -log p(label)        d loss = 1 / (valid tokens of the whole step)
//
// The seed is data, so that accumulation over micro-batches divides once by all valid tokens: the gradient of
// a step does not depend on how its rows were cut into micro-batches (but for rounding).
#pragma once
#include <memory>

#include "data/pack/dataset.h"
#include "engine/plan/program.h"
#include "models/model.h"

namespace nvl {

class StepProgram {
public:
    enum Kind {
        training,  // forward and backward; fused loss
        evaluation // forward; the loss of every token is kept
    };
    /// `tokens` rows at most, which hold at most `max_sequences` sequences. `row_length`: for counting the
    /// FLOPs of attention before there is data, sequences are taken to have this length (0: all is one
    /// sequence).
    StepProgram(Model& model, int64_t tokens, int64_t max_sequences, Kind kind = training,
                int64_t row_length = 0);
    StepProgram(const StepProgram&) = delete;

    /// Copies the batch in and runs. Returns the sum of the losses of its valid tokens.
    /// `first`: parameter gradients are written; else they are added to.
    double run(const TokenBatch& batch, double dloss = 1, bool first = true, Run options = {});
    /// Of token i, after a run of an evaluation program.
    float token_loss(int64_t i) const;

    /// Of the last run: losses that the model adds by name, unweighted; and for each mixture of experts how
    /// often each expert was chosen.
    std::vector<std::pair<std::string, double>> auxiliary() const;
    std::vector<std::vector<int64_t>> expert_counts() const;

    const Program& program() const { return *program_; }
    /// Runs the micro-batch again and names the first step that writes a NaN or an infinity; empty if none
    /// does.
    std::string find_non_finite(const TokenBatch& batch, double dloss);

private:
    struct Seeded {
        Auxiliary loss;
        Tensor seed;
    };
    void fill(const TokenBatch& batch, double dloss);
    void put(const Tensor& t, double value);
    double get(const Tensor& t) const;
    int64_t capacity_, max_sequences_;
    Tape tape_;
    Batch batch_;
    Tensor labels_, dloss_, loss_, token_;
    std::vector<Seeded> auxiliary_;
    std::vector<Tensor> expert_counts_;
    std::unique_ptr<Program> program_;
};

} // namespace nvl
