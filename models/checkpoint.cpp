#include "models/checkpoint.h"

#include <algorithm>

#include "engine/io/file.h"
#include "engine/io/safetensors.h"

namespace nvl {

bool is_gguf(const std::string& path) {
    return path.size() > 5 && path.compare(path.size() - 5, 5, ".gguf") == 0;
}

static Json read_config(const std::string& folder) {
    std::string path = folder + "/config.json";
    check(exists(folder), "%s: no such model; expected a Hugging Face folder or a .gguf file",
          folder.c_str());
    check(is_directory(folder), "%s: expected a Hugging Face folder or a .gguf file", folder.c_str());
    check(exists(path), "%s: not found; a model folder holds config.json and model.safetensors",
          path.c_str());
    Json config = Json::parse(read_file(path), nullptr, false);
    check(!config.is_discarded(), "%s: not valid JSON", path.c_str());
    return config;
}

std::unique_ptr<Model> open_model(const std::string& path) {
    try {
        return make_model(is_gguf(path) ? config_of_gguf(path) : read_config(path));
    } catch (const Error& e) {
        std::string text = e.what();
        fail("%s%s", text.rfind(path, 0) == 0 ? "" : (path + ": ").c_str(), text.c_str());
    }
}

// Hub files of base models carry no "transformer." or "model." prefix.
static const StoredTensor* find_weight(const Checkpoint& file, const std::string& name) {
    if (const StoredTensor* t = file.find(name)) return t;
    return file.find(name.substr(name.find('.') + 1));
}
// Buffers that old checkpoints hold beside the weights, and the head where it is tied to the embedding.
static bool known_extra(const std::string& name) {
    auto ends_with = [&](const std::string& end) {
        return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
    };
    return ends_with(".attn.bias") || ends_with(".masked_bias") || ends_with("embeddings.position_ids") ||
           ends_with("rotary_emb.inv_freq") || name == "lm_head.weight";
}

// The stored tensors that make up a weight: one, or one for each matrix of a stack.
static std::vector<const StoredTensor*> find_parts(const Checkpoint& file, const WeightInfo& w,
                                                   const std::string& path) {
    std::vector<const StoredTensor*> parts;
    Shape shape = w.part_shape();
    for (int64_t i = 0; i < w.parts(); i++) {
        std::string name = w.part_name(i);
        const StoredTensor* stored = find_weight(file, name);
        check(stored, "%s: weight %s %s is missing", path.c_str(), name.c_str(), shape.text().c_str());
        check(stored->shape == shape, "%s: weight %s is %s, config.json asks for %s", path.c_str(),
              name.c_str(), stored->shape.text().c_str(), shape.text().c_str());
        parts.push_back(stored);
    }
    return parts;
}

void load_weights(Model& model, const std::string& path, const WeightTensor& also) {
    if (is_gguf(path)) return load_gguf_weights(model, path, also);
    Checkpoint file(path);
    std::vector<const StoredTensor*> used;
    model.each([&](const WeightInfo& w, Tensor& t) {
        std::vector<const StoredTensor*> parts = find_parts(file, w, path);
        auto fill = [&](const Tensor& to) {
            int64_t bytes = w.part_shape().numel() * size_of(to.dtype());
            host_write(to, [&](std::byte* data) {
                for (size_t i = 0; i < parts.size(); i++)
                    convert(*parts[i], to.dtype(), data + int64_t(i) * bytes);
            });
        };
        fill(t);
        if (Tensor other = also ? also(w, t) : Tensor{}; other && other.buffer != t.buffer) fill(other);
        used.insert(used.end(), parts.begin(), parts.end());
    });
    for (const StoredTensor& t : file.tensors())
        check(std::find(used.begin(), used.end(), &t) != used.end() || known_extra(t.name),
              "%s: tensor %s %s is not part of this model (model_type %s)", path.c_str(), t.name.c_str(),
              t.shape.text().c_str(), model.config["model_type"].get<std::string>().c_str());
}

std::unique_ptr<Model> load_model(const std::string& path, Store& store, Dtype dtype, bool gradients) {
    auto model = open_model(path);
    model->allocate(store, dtype, gradients);
    load_weights(*model, path);
    return model;
}

void save_model(Model& model, const std::string& folder, const WeightTensor& value_of,
                int64_t max_shard_bytes) {
    std::vector<TensorSource> sources;
    Dtype dtype = Dtype::f32;
    for (auto& [w, t] : model.weights()) {
        Tensor value = value_of ? value_of(w, t) : t;
        for (int64_t i = 0; i < w.parts(); i++)
            sources.push_back(
                {w.part_name(i), w.part_shape(), w.stacked() ? slice(value, 0, i, i + 1) : value});
        if (w.role != Role::buffer) dtype = value.dtype();
    }
    write_checkpoint(folder, sources, max_shard_bytes);
    Json config = model.config;
    config.erase("torch_dtype");
    config["dtype"] = dtype == Dtype::bf16 ? "bfloat16" : dtype == Dtype::f64 ? "float64" : "float32";
    write_file(folder + "/config.json", config.dump(2) + "\n");
}

} // namespace nvl
