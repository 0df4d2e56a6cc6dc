// The optimiser as a program of its own over the weights' memory: gradient norm and clipping, then AdamW or
// Muon.
//
//   AdamW   m, v per element;  w -= lr (m^ / (sqrt(v^) + eps) + decay w)              Loshchilov 2019
//   Muon    matrices: momentum, then 5 Newton-Schulz steps towards the nearest orthogonal matrix   Jordan
//   2024
//
// Master weights, moments and arithmetic are f32; bf16 compute weights are rounded from the masters at the
// end of each step. Vectors (norms, biases) are not decayed.
#pragma once
#include <memory>

#include "engine/io/safetensors.h"
#include "engine/plan/program.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/global_norm.h"
#include "kernels/optim/muon.h"
#include "models/model.h"
#include "train/loop/config.h"

namespace nvl {

class Optimizer {
public:
    /// State is taken from `store`; the weights must be allocated and hold their values.
    Optimizer(Model& model, Store& store, const OptimizerConfig& config);

    /// L2 norm of all gradients, before clipping. Nothing is changed yet: the caller looks at it first.
    double gradient_norm();
    /// Updates the weights. `step` counts from 0; `lr_factor` is the schedule's.
    void update(int64_t step, double lr_factor);

    /// The f32 value of a weight: the weight itself, or its master copy.
    Tensor master(const Tensor& weight) const;
    /// Moments by name, for checkpoints.
    std::vector<TensorSource> state() const;
    void load_state(const std::string& file);

    int64_t bytes() const { return bytes_; } // masters and moments
    const Program& program() const { return *program_; }

private:
    struct Slot {
        WeightInfo info;
        Tensor weight;
        AdamWState state; // of Muon only m and master
        bool decayed = false, muon = false;
    };
    OptimizerConfig config_;
    std::vector<Slot> slots_;
    Tensor adamw_step_, vector_step_,
        muon_step_; // the numbers of a step, for decayed weights, vectors, matrices
    int64_t bytes_ = 0;
    Tape tape_;
    GlobalNorm norm_;
    std::unique_ptr<Program> program_;
};

} // namespace nvl
