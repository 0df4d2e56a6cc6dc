#include "engine/io/safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/base/text.h"
#include "engine/io/missing.h"
#include "engine/io/printable.h"
#include "engine/io/safetensors_header.h"

namespace nvl {

namespace {
constexpr const char* SINGLE = "model.safetensors";
constexpr const char* INDEX = "model.safetensors.index.json";

std::string join(const std::string& folder, const std::string& name) {
    return folder.ends_with('/') ? folder + name : folder + "/" + name;
}

/// weight_map of an index: tensor name -> shard. Refuses names that leave the folder and keys that repeat.
std::map<std::string, std::string> read_index(const std::string& path) {
    using nlohmann::json;
    std::vector<std::set<std::string>> keys;
    auto no_duplicates = [&](int depth, json::parse_event_t event, json& value) {
        check(depth < 8, "%s: nested too deeply", path.c_str());
        if (keys.size() <= size_t(depth)) keys.resize(size_t(depth) + 1);
        if (event == json::parse_event_t::object_start) keys[size_t(depth)].clear();
        if (event == json::parse_event_t::key) {
            // a key is reported one level below the object that it belongs to
            auto& seen = keys[size_t(depth - 1)];
            check(seen.insert(value.get<std::string>()).second, "%s: the key \"%s\" appears twice",
                  path.c_str(), printable(value.get<std::string>()).c_str());
        }
        return true;
    };
    json index;
    try {
        index = json::parse(read_file(path), no_duplicates);
    } catch (const json::exception& e) {
        fail("%s: not JSON: %s", path.c_str(), printable(e.what()).c_str());
    }
    check(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object() &&
              !index["weight_map"].empty(),
          "%s: expected \"weight_map\": {tensor: shard, ...}", path.c_str());
    std::map<std::string, std::string> map;
    for (auto& [tensor, shard] : index["weight_map"].items()) {
        check(shard.is_string(), "%s: weight_map: \"%s\": expected the name of a shard", path.c_str(),
              printable(tensor).c_str());
        std::string name = shard.get<std::string>();
        check(name.ends_with(".safetensors") &&
                  name.find_first_of(std::string("/\\\0", 3)) == std::string::npos,
              "%s: weight_map: \"%s\": the shard \"%s\" is not a .safetensors file beside the index",
              path.c_str(), printable(tensor).c_str(), printable(name).c_str());
        map[tensor] = name;
    }
    return map;
}
} // namespace

bool is_checkpoint(const std::string& path) {
    return is_directory(path) ? exists(join(path, SINGLE)) || exists(join(path, INDEX))
                              : path.ends_with(".safetensors");
}

Checkpoint::Checkpoint(const std::string& path) : path_(path) {
    check(exists(path), "%s: no such file or folder", path.c_str());
    if (!is_directory(path))
        add_file(path);
    else if (exists(join(path, SINGLE)))
        add_file(join(path, SINGLE));
    else if (exists(join(path, INDEX)))
        add_shards(path, join(path, INDEX));
    else
        fail("%s: no weights in this folder: expected %s or %s", path.c_str(), SINGLE, INDEX);
}

void Checkpoint::add_file(const std::string& path) {
    files_.push_back(std::make_unique<MappedFile>(path));
    SafetensorsHeader header = parse_safetensors(files_.back()->bytes(), path);
    for (StoredTensor& t : header.tensors) {
        check(by_name_.emplace(t.name, tensors_.size()).second,
              "%s: tensor \"%s\" is in another shard as well", path.c_str(), printable(t.name).c_str());
        tensors_.push_back(std::move(t));
    }
    metadata_.merge(header.metadata);
}

void Checkpoint::add_shards(const std::string& folder, const std::string& index_path) {
    auto map = read_index(index_path);
    std::set<std::string> shards;
    for (auto& [tensor, shard] : map) shards.insert(shard);
    for (auto& shard : shards)
        check(exists(join(folder, shard)), "%s: the shard %s is missing (%zu shards expected)",
              index_path.c_str(), shard.c_str(), shards.size());
    std::map<std::string, std::pair<size_t, size_t>> range; // shard -> its tensors
    for (auto& shard : shards) {
        size_t before = tensors_.size();
        add_file(join(folder, shard));
        range[shard] = {before, tensors_.size()};
    }
    for (auto& [tensor, shard] : map) {
        auto found = by_name_.find(tensor);
        check(found != by_name_.end() && found->second >= range[shard].first &&
                  found->second < range[shard].second,
              "%s: the tensor \"%s\" is not in %s", index_path.c_str(), printable(tensor).c_str(),
              shard.c_str());
    }
}

const StoredTensor* Checkpoint::find(const std::string& name) const {
    auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
}
const StoredTensor& Checkpoint::at(const std::string& name) const {
    if (auto* t = find(name)) return *t;
    no_such_tensor(path_, name, tensors_);
}

} // namespace nvl
