// Two micro-batches through a model of some 100k parameters and its optimizer, on any device: what hwcheck
// and the tests of CUDA compare with the CPU.
#pragma once
#include <cmath>

#include "engine/base/rng.h"
#include "train/loop/optimizer.h"
#include "train/loop/step.h"

namespace nvl::tiny {

inline constexpr int64_t V = 96, T = 44;

inline Json qwen3() {
    return {{"model_type", "qwen3"},        {"hidden_size", 64},        {"num_hidden_layers", 2},
            {"num_attention_heads", 4},     {"num_key_value_heads", 2}, {"head_dim", 16},
            {"intermediate_size", 96},      {"vocab_size", V},          {"max_position_embeddings", 64},
            {"tie_word_embeddings", false}, {"rms_norm_eps", 1e-6},     {"rope_theta", 10000.0}};
}
// Three sequences of different lengths; some tokens are not to be learned.
inline TokenBatch batch(uint64_t key, int64_t rows) {
    TokenBatch b;
    b.sequence_starts = {0, 7, 29, int32_t(rows)};
    Random random(key, "tokens");
    for (int64_t i = 0, n = 0; i < rows; i++) {
        while (i >= b.sequence_starts[size_t(n + 1)]) n++;
        b.tokens.push_back(int32_t(random.below(uint64_t(i), V)));
        b.labels.push_back(i % 9 == 4 ? -1 : int32_t(random.below(uint64_t(i + 1000), V)));
        b.positions.push_back(int32_t(i) - b.sequence_starts[size_t(n)]);
        b.valid += b.labels.back() >= 0;
    }
    return b;
}

struct Training {
    Store store;
    std::unique_ptr<Model> model;
    std::unique_ptr<Optimizer> optimizer;
    std::unique_ptr<StepProgram> program;
    double grad_norm = 0;
    Training(Device device, const Json& config, Dtype dtype, const OptimizerConfig& o) : store(device) {
        model = make_model(config);
        model->allocate(store, dtype, true);
        model->initialise(3);
        optimizer = std::make_unique<Optimizer>(*model, store, o);
        program = std::make_unique<StepProgram>(*model, T, 3);
    }
    double step(int64_t number) { // two micro-batches, the second one shorter
        TokenBatch a = batch(uint64_t(number), T), b = batch(uint64_t(number) + 100, T - 5);
        double scale = 1.0 / double(a.valid + b.valid);
        double loss = program->run(a, scale, true);
        loss += program->run(b, scale, false);
        grad_norm = optimizer->gradient_norm();
        optimizer->update(number, 1.0 / double(number + 1));
        return loss * scale;
    }
};

inline std::vector<double> values(const Tensor& t) {
    HostCopy copy(t);
    std::vector<double> v;
    for (int64_t i = 0; i < t.shape().numel(); i++)
        v.push_back(t.dtype() == Dtype::bf16 ? double(float(copy.as<bf16>()[i]))
                                             : double(copy.as<float>()[i]));
    return v;
}
inline double norm(const std::vector<double>& a) {
    double s = 0;
    for (double x : a) s += x * x;
    return std::sqrt(s);
}
inline void copy(const Tensor& to, const Tensor& from) {
    HostCopy values(from);
    host_write(to, [&](std::byte* p) { std::copy_n(values.data(), from.buffer->bytes(), p); });
}
/// Weights, masters and moments: every step is compared from one state.
inline void copy_state(Training& to, Training& from) {
    auto a = to.model->weights(), b = from.model->weights();
    for (size_t i = 0; i < a.size(); i++) {
        copy(a[i].second, b[i].second);
        copy(to.optimizer->master(a[i].second), from.optimizer->master(b[i].second));
    }
    auto x = to.optimizer->state(), y = from.optimizer->state();
    for (size_t i = 0; i < x.size(); i++) copy(x[i].tensor, y[i].tensor);
}

} // namespace nvl::tiny
