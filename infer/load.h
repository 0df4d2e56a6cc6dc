// A model with what belongs to it, as inference wants it.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "models/checkpoint.h"

namespace nvl {

struct LoadedModel {
    explicit LoadedModel(Device device) : store(device) {}
    Store store;
    std::unique_ptr<Model> model;
    std::optional<Tokenizer> tokenizer; // none where the folder has no tokenizer.json
    std::vector<int32_t> stop_ids;      // what ends an answer, as the model's files say
    Dtype dtype;
    const Tokenizer& need_tokenizer() const; // or an error that says where it should be
    std::string path;
};

/// Weights for inference and tokenizer; an error where the two do not belong together.
std::unique_ptr<LoadedModel> load_for_inference(const std::string& path, Dtype dtype,
                                                Device device = Device::cpu);

/// A model may have more ids than its tokenizer (the embedding is padded), by an eighth or 128 at most, but
/// never fewer.
void check_vocabulary(const std::string& path, const Tokenizer& tokenizer, int64_t vocabulary);

/// eos of the tokenizer, of config.json and of generation_config.json (a number or a list each).
std::vector<int32_t> stop_ids_of(const std::string& path, const Model& model, const Tokenizer* tokenizer);

} // namespace nvl
