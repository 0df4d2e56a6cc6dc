// GGUF, the model files of llama.cpp, versions 2 and 3: metadata and tensors in one little-endian file.
//
//   "GGUF"  u32 version  u64 n_tensors  u64 n_metadata
//   n_metadata x { string key, u32 type, value }
//   n_tensors  x { string name, u32 rank, u64 ne[rank], u32 type, u64 offset }
//   padding to general.alignment (32 where absent), data
//
// A string is u64 length + bytes, an array u32 type, u64 n + values; offsets count from the data's begin.
//
// The reader checks every count against the bytes that are left before it allocates, and every tensor's
// place before anyone touches its bytes. An error names the file, the field and the byte where it stands.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "engine/io/block_format.h"
#include "engine/io/file.h"
#include "engine/tensor/layout.h"

namespace nvl {

/// `shape` is ours: row-major, the last dimension dense (the file's ne[] reversed). Blocks run along it.
struct GgufTensor {
    std::string name;
    BlockType type;
    Shape shape;
    std::span<const std::byte> bytes;
};

class Gguf {
public:
    explicit Gguf(const std::string& path);
    /// For tests: a file in memory, which must outlive this. `path` is for error messages.
    Gguf(std::span<const std::byte> file, const std::string& path);
    const std::string& path() const { return path_; }
    int version() const { return int(version_); }
    int64_t alignment() const { return int64_t(alignment_); }

    // Typed metadata. A missing key or a value of another kind is an error that names both; `integer` takes
    // every integer type that fits, `number` floats and integers. Strings are bytes: files exist whose
    // vocabulary is not valid UTF-8.
    bool has(const std::string& key) const { return values_.count(key); }
    std::vector<std::string> keys() const;
    std::string string(const std::string& key) const;
    int64_t integer(const std::string& key) const;
    double number(const std::string& key) const;
    bool boolean(const std::string& key) const;
    std::vector<std::string> strings(const std::string& key) const;
    std::vector<int64_t> integers(const std::string& key) const;
    std::vector<double> numbers(const std::string& key) const;
    // The same where the key may be absent; a value of another kind is still an error.
    std::optional<std::string> find_string(const std::string& key) const;
    std::optional<int64_t> find_integer(const std::string& key) const;
    std::optional<double> find_number(const std::string& key) const;
    std::optional<bool> find_boolean(const std::string& key) const;
    std::optional<std::vector<std::string>> find_strings(const std::string& key) const;
    std::optional<std::vector<int64_t>> find_integers(const std::string& key) const;
    std::optional<std::vector<double>> find_numbers(const std::string& key) const;
    bool is_array(const std::string& key) const;    // some keys hold one number or one per layer
    std::string text(const std::string& key) const; // any value for people, long ones shortened

    const std::vector<GgufTensor>& tensors() const { return tensors_; }
    const GgufTensor* find(const std::string& name) const;
    const GgufTensor& at(const std::string& name) const;

private:
    struct Value {
        uint32_t type = 0; // of the value, or of the elements of an array
        bool array = false;
        uint64_t count = 1;
        std::span<const std::byte> bytes; // elements; strings with their lengths
    };
    class Reader;
    void parse();
    void read_metadata(Reader& r, uint64_t count);
    void read_tensors(Reader& r, uint64_t count);
    const Value* find_value(const std::string& key) const;
    const Value& value(const std::string& key) const;
    template <class F> auto optional(const std::string& key, F read) const;
    void expect(bool ok, const std::string& key, const char* wanted) const;
    int64_t integer_at(const std::string& key, const Value& v, uint64_t i) const;
    double number_at(const std::string& key, const Value& v, uint64_t i) const;

    std::optional<MappedFile> map_;
    std::span<const std::byte> file_;
    std::string path_;
    uint32_t version_ = 0;
    uint64_t alignment_ = 32;
    std::map<std::string, Value> values_;
    std::vector<GgufTensor> tensors_;
    std::map<std::string, size_t> by_name_;
};

/// Builds a GGUF v3 file; tensor bytes are not copied and must live until write(), which is atomic.
class GgufWriter {
public:
    using Value = std::variant<bool, int32_t, uint32_t, int64_t, uint64_t, float, double, std::string,
                               std::vector<bool>, std::vector<int32_t>, std::vector<uint32_t>,
                               std::vector<int64_t>, std::vector<float>, std::vector<std::string>>;
    void set(const std::string& key, Value value);
    void add(const std::string& name, BlockType type, const Shape& shape, std::span<const std::byte> bytes);
    void write(const std::string& path, uint32_t alignment = 32) const;

private:
    std::vector<std::pair<std::string, Value>> values_;
    std::vector<GgufTensor> tensors_;
};

} // namespace nvl
