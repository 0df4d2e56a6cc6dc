// The one training loop: pretraining and fine-tuning differ in the data they bring.
//
//   for step: micro-batches (forward, backward) -> gradient norm -> update -> metrics
//             -> checkpoint -> evaluation -> samples         (a checkpoint never waits for an evaluation)
//
// Everything a step does is a function of (config, weights and moments, step): a run that was killed and
// resumed has the bits of one that was not.
#pragma once
#include <memory>

#include "train/loop/checkpoint.h"
#include "train/loop/data.h"
#include "train/loop/metrics.h"
#include "train/loop/step.h"

namespace nvl {

/// The model that a config describes: the block, the folder, or the checkpoint it starts from. A vocabulary
/// size that is not given is the tokenizer's; one that is smaller is an error.
std::unique_ptr<Model> model_of(const TrainConfig& config, const Tokenizer* tokenizer);

struct Validation {
    double loss = 0, bits_per_byte = 0; // nats per token; over tokens that stand for bytes
    int64_t tokens = 0;
};

class Trainer {
public:
    Trainer(TrainConfig config, TrainingData data);
    /// Trains to the last step. False if SIGINT or SIGTERM stopped it (after saving).
    bool run();
    Validation validate();

    Model& model() { return *model_; }
    const std::vector<double>& losses() const { return losses_; } // of the steps of this run

private:
    void print_plan() const;
    void load_values(const std::string& path);
    void resume_from(const std::string& checkpoint);
    StepMetrics one_step(int64_t step);
    [[noreturn]] void stop_non_finite(int64_t step, double scale, const char* what);
    void save(const StepMetrics& m);
    void sample(int64_t step);
    void write_summary(double seconds, const StepMetrics& last) const;

    TrainConfig config_;
    TrainingData data_;
    Store store_{device_from(config_.device)};
    std::unique_ptr<Model> model_;
    std::unique_ptr<Optimizer> optimizer_;
    std::unique_ptr<StepProgram> step_, evaluation_;
    double peak_flops_ = 0, flops_per_token_ = 0, seconds_ = 0;
    int64_t start_ = 0, saved_ = -1;
    std::vector<double> losses_;
    Json resumed_metrics_;
    Validation last_validation_;
};

/// Runs until done or stopped, with signals caught: the body of the commands.
int train(const TrainConfig& config, TrainingData data);

} // namespace nvl
