// Reads a Hugging Face config.json, in the style of transformers 5 and in the older one that hub checkpoints
// use.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/base/check.h"

namespace nvl {

using Json = nlohmann::ordered_json;

/// Typed access with one clear line for what is missing or of the wrong kind. Null counts as absent.
class ConfigReader {
public:
    explicit ConfigReader(const Json& json) : json_(json) {}
    bool has(const char* key) const;
    int64_t integer(const char* key) const;
    int64_t integer(const char* key, int64_t fallback) const;
    double number(const char* key, double fallback) const;
    bool boolean(const char* key, bool fallback) const;
    std::string text(const char* key, const std::string& fallback) const;
    /// A size: an integer from 1 to `most`.
    int64_t size(const char* key, int64_t most = int64_t(1) << 40) const;
    const Json& json() const { return json_; }

private:
    const Json* find(const char* key) const;
    const Json& json_;
};

/// Window per layer (0: full attention): from layer_types, else every `full_every`-th layer is full, else
/// (full_every 0) from use_sliding_window and max_window_layers.
std::vector<int64_t> read_windows(const ConfigReader& c, int64_t layers, int64_t full_every = 0);

} // namespace nvl
