// Models from and to disk: Hugging Face folders (safetensors, sharded or not), and GGUF files read as such a
// model.
#pragma once
#include <memory>
#include <string>

#include "models/model.h"

namespace nvl {

/// Another tensor that belongs to a weight; an empty one where there is none.
using WeightTensor = std::function<Tensor(const WeightInfo&, const Tensor&)>;

/// A model without weights: from a folder's config.json, or from the metadata of a .gguf file.
std::unique_ptr<Model> open_model(const std::string& path);

/// Fills allocated weights from the folder or file, converting to their dtype. Every weight must be there
/// with its shape, and nothing unknown beside them. `also` may name another tensor that takes the same values
/// in its own type, such as the f32 master copy of a bf16 weight.
void load_weights(Model& model, const std::string& path, const WeightTensor& also = nullptr);

/// open_model + allocate + load_weights, for inference or training.
std::unique_ptr<Model> load_model(const std::string& path, Store& store, Dtype dtype, bool gradients);

/// Writes config.json and the weights (f32, or their own dtype) into the folder, which must not hold weights
/// yet. `value_of` may give another tensor for a weight, such as its f32 master copy.
void save_model(Model& model, const std::string& folder, const WeightTensor& value_of = nullptr,
                int64_t max_shard_bytes = 5'000'000'000);

bool is_gguf(const std::string& path);
/// The config.json that describes the model in a .gguf file.
Json config_of_gguf(const std::string& path);
void load_gguf_weights(Model& model, const std::string& path, const WeightTensor& also);

} // namespace nvl
