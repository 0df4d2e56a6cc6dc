// A model: dimensions read from config.json, one table that names every weight, and a forward of some sixty
// lines.
//
// Everything that walks weights (checkpoints, initialisation, optimiser groups, FLOP counts, sharding) walks
// the table; everything that computes calls hidden(). A family is a folder that registers itself under its
// model_type.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/tape/tape.h"
#include "kernels/loss/linear_cross_entropy.h"
#include "models/blocks/batch.h"

namespace nvl {

using Json = nlohmann::ordered_json;

/// How optimisers and FLOP counts treat a weight: matrices multiply the token stream; an embedding is looked
/// up.
/// A buffer is no parameter: f32 whatever the compute type, without a gradient.
enum class Role : uint8_t { matrix, embedding, head, vector, buffer };

struct WeightInfo {
    std::string name; // as in the Hugging Face checkpoint; with a *: one tensor there for each i of shape[0]
    Shape shape;
    Role role;
    double mean = 0, std = 0; // initialisation: normal(mean, std)
    double active = 1;        // share of it that a token meets (experts: top_k / experts)

    bool stacked() const { return name.find('*') != name.npos; }
    int64_t parts() const { return stacked() ? shape[0].size : 1; }
    /// Name and shape of the i-th tensor in the checkpoint, of which the weight is the stack.
    std::string part_name(int64_t i) const;
    Shape part_shape() const;
};
using Visit = std::function<void(const WeightInfo&, Tensor&)>;

struct Dims {
    int64_t layers, C, H, G, D, F, V,
        context;                 // layers, model, query heads, kv heads, head, ffn, vocabulary, positions
    std::vector<int64_t> window; // per layer; 0: full attention
};

/// Of a token in the cache of one layer: keys (heads, key) and values (heads, value); value 0: read off the
/// keys.
struct CacheShape {
    int64_t heads, key, value;
};

/// A loss that the model itself adds, such as the balancing of experts: total = loss + sum coefficient *
/// loss.
struct Auxiliary {
    std::string name;
    Tensor loss; // (1), differentiable
    double coefficient;
};

/// Floating point operations per token, forward and backward, and the terms they are made of.
struct FlopCount {
    int64_t matmul_weights;   // N: weights that multiply a token, head included (of experts, the chosen ones)
    int64_t attention_tokens; // sum over layers of min(window, context)
    double per_token;         // 6 N + 12 H D * attention_tokens
    double forward_per_token() const { return per_token / 3; }
};

/// Which blocks the backward pass computes again instead of keeping: none, full, or every K-th.
struct Recompute {
    int64_t every = 0;                               // 0: none, 1: full
    static Recompute parse(const std::string& text); // "none", "full", "every:K"
    bool layer(int64_t l) const { return every && l % every == 0; }
};

class Model {
public:
    virtual ~Model() = default;
    /// Visits every weight in checkpoint order.
    virtual void each(const Visit& visit) = 0;
    /// (T, C) after the final norm: what the head multiplies.
    virtual Tensor hidden(const Batch& batch) = 0;
    /// The matrix (V, C) that turns hidden states into logits; the embedding itself where they are tied.
    virtual Tensor head() const = 0;

    /// hidden (T, C) -> logits (T, V) in f32 whatever the compute type. Records no backward: training goes
    /// through loss(), which never holds all logits.
    Tensor head_logits(Tensor hidden);
    /// Cross-entropy of the head's logits against labels (T) i32; the model's own soft cap is added to
    /// options.
    CrossEntropy loss(Tensor hidden, Tensor labels, LossOptions options = {});
    /// Takes memory for all weights: parameters with gradients, or plain tensors for inference.
    void allocate(Store& store, Dtype dtype, bool gradients);
    /// Fills every weight from normal(mean, std) as a function of (seed, name, index).
    void initialise(uint64_t seed);
    std::vector<std::pair<WeightInfo, Tensor>> weights();
    /// Those that take gradients.
    std::vector<Tensor> trainable();
    int64_t parameters();
    FlopCount flops(int64_t context);
    /// What a layer's cache keeps of a token.
    virtual CacheShape cache_shape() const { return {dims.G, dims.D, dims.D}; }
    /// Bytes that one token adds to the cache, over all layers.
    int64_t cache_bytes_per_token(Dtype dtype) const;

    /// Of the last recording of hidden(): auxiliary losses, and per mixture of experts how often each was
    /// chosen, (E).
    std::vector<Auxiliary> auxiliary;
    std::vector<Tensor> expert_counts;

    Json config; // as read; written back with checkpoints
    Dims dims{};
    double logit_softcap = 0; // logits are capped to (-c, c) by c tanh(l / c); 0: not
    Recompute recompute;
};

/// Builds a model from the content of a config.json; an unknown model_type is an error that lists the known
/// ones.
std::unique_ptr<Model> make_model(const Json& config);
std::vector<std::string> known_families();

struct RegisterModel {
    RegisterModel(const std::string& model_type, std::function<std::unique_ptr<Model>(const Json&)> make);
};

/// Records block(x, model, batch, layer), again in the backward pass if the model's policy says so.
template <class M> auto run_block(Tensor x, const M* model, const Batch& batch, int64_t layer) {
    auto call = [](Tensor x, const M* m, Batch b, int64_t l) {
        Module here("layers." + std::to_string(l));
        return m->block(x, b, l);
    };
    if (model->recompute.layer(layer) && !batch.cache) return tape().checkpoint(call, x, model, batch, layer);
    return call(x, model, batch, layer);
}

} // namespace nvl
