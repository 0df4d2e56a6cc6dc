// The header of a safetensors file: parsed and checked, nothing else (a fuzzer's entry point).
#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"

namespace nvl {

struct SafetensorsHeader {
    std::vector<StoredTensor> tensors; // in the order of their data
    std::map<std::string, std::string> metadata;
};
/// `file` is the whole file; `path` is for error messages only.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& path);

} // namespace nvl
