#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/io/convert.h"
#include "engine/io/printable.h"
#include "engine/io/safetensors.h"

namespace nvl {

namespace {
/// JSON text of a string; our own names are UTF-8 or the writer says so.
std::string quoted(const std::string& text) {
    try {
        return nlohmann::json(text).dump();
    } catch (const nlohmann::json::exception&) {
        fail("\"%s\" is not UTF-8; it cannot be written into a safetensors header", printable(text).c_str());
    }
}

std::string header_of(const std::vector<TensorSource>& tensors,
                      const std::map<std::string, std::string>& metadata) {
    std::string text = "{";
    if (!metadata.empty()) {
        text += "\"__metadata__\":{";
        for (auto& [key, value] : metadata) text += quoted(key) + ":" + quoted(value) + ",";
        text.back() = '}';
        text += ",";
    }
    int64_t at = 0;
    for (auto& t : tensors) {
        text += quoted(t.name) + ":{\"dtype\":\"" + name_of(t.type) + "\",\"shape\":[";
        for (int i = 0; i < t.shape.rank; i++) text += (i ? "," : "") + std::to_string(t.shape[i].size);
        text += "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + t.bytes()) + "]},";
        at += t.bytes();
    }
    if (text.back() == ',') text.pop_back();
    text += "}";
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
}

void write_data(const TensorSource& t, const std::function<void(const void*, size_t)>& write) {
    std::optional<HostCopy> copy;
    const void* data = t.tensor ? copy.emplace(t.tensor).data() : t.data;
    if (stored_type(t.dtype) == t.type) {
        write(data, size_t(t.bytes()));
        return;
    }
    constexpr int64_t PIECE = 1 << 20;
    int64_t count = t.shape.numel();
    StoredTensor from{t.name,
                      stored_type(t.dtype),
                      t.shape,
                      {static_cast<const std::byte*>(data), size_t(count * size_of(t.dtype))}};
    std::vector<std::byte> piece(size_t(std::min(PIECE, count) * size_of(t.type)));
    for (int64_t begin = 0; begin < count; begin += PIECE) {
        int64_t n = std::min(PIECE, count - begin);
        convert_range(from, t.type, begin, n, piece.data());
        write(piece.data(), size_t(n * size_of(t.type)));
    }
}
} // namespace

void write_safetensors(const std::string& path, std::vector<TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata) {
    std::sort(tensors.begin(), tensors.end(),
              [](auto& a, auto& b) { return a.type != b.type ? a.type > b.type : a.name < b.name; });
    std::set<std::string> names{"__metadata__"};
    for (auto& t : tensors)
        check(names.insert(t.name).second, "%s: the tensor name \"%s\" appears twice or is reserved",
              path.c_str(), printable(t.name).c_str());
    std::string header = header_of(tensors, metadata);
    check(header.size() <= 100'000'000, "%s: a header of %zu bytes; readers take at most 100 MB, use shards",
          path.c_str(), header.size());
    write_file(path, [&](auto& write) {
        uint64_t n = header.size();
        write(&n, 8);
        write(header.data(), header.size());
        for (auto& t : tensors) write_data(t, write);
    });
}

void write_checkpoint(const std::string& folder, const std::vector<TensorSource>& tensors,
                      int64_t max_shard_bytes, const std::map<std::string, std::string>& metadata) {
    check(max_shard_bytes > 0, "%s: shards of at most %ld bytes; expected a positive size", folder.c_str(),
          max_shard_bytes);
    make_directories(folder);
    check(!is_checkpoint(folder), "%s: this folder holds weights already; write to a new folder",
          folder.c_str());
    std::vector<std::vector<TensorSource>> shards(1);
    int64_t total = 0, filled = 0;
    std::set<std::string> names;
    for (auto& t : tensors) {
        check(names.insert(t.name).second, "%s: the tensor name \"%s\" appears twice", folder.c_str(),
              printable(t.name).c_str());
        if (filled + t.bytes() > max_shard_bytes && !shards.back().empty()) shards.emplace_back(), filled = 0;
        shards.back().push_back(t);
        filled += t.bytes(), total += t.bytes();
    }
    if (shards.size() == 1) return write_safetensors(folder + "/model.safetensors", shards[0], metadata);

    check(shards.size() < 100000, "%s: %zu shards; choose larger ones", folder.c_str(), shards.size());
    nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", nlohmann::json::object()}};
    for (size_t i = 0; i < shards.size(); i++) {
        std::string name = format("model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
        for (auto& t : shards[i]) index["weight_map"][t.name] = name;
        write_safetensors(folder + "/" + name, std::move(shards[i]), metadata);
    }
    write_file(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}

} // namespace nvl
