// Hugging Face safetensors: the checkpoint format in and out.
//
//   u64 n (little endian)   n bytes of JSON, padded with spaces   data
//   {"__metadata__": {"format": "pt"}, "wte.weight": {"dtype": "F32", "shape": [50257, 768],
//                                                     "data_offsets": [begin, end]}, ...}
//
// The reader believes nothing: the header is at most 100 MB, without duplicate or unknown keys; shapes are
// multiplied with overflow checks and equal the bytes they claim; the tensors lie without holes or overlaps
// and cover the data to its end. All of it is checked on the header alone, before a byte of data is touched.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/io/file.h"
#include "engine/tensor/tensor.h"

namespace nvl {

/// Element types of the format, in the format's own order: files are written with the largest first.
enum class StoredType : uint8_t {
    boolean,
    u8,
    i8,
    f8_e5m2,
    f8_e4m3,
    i16,
    u16,
    f16,
    bf16,
    i32,
    u32,
    f32,
    f64,
    i64,
    u64
};
int64_t size_of(StoredType t);
const char* name_of(StoredType t); // "F32", as the header spells it
StoredType stored_type(Dtype d);

/// A tensor in a mapped file; `bytes` may be unaligned and live as long as the file object.
struct StoredTensor {
    std::string name;
    StoredType type;
    Shape shape;
    std::span<const std::byte> bytes;
    int64_t count() const { return shape.numel(); }
};

/// Writes the count() elements to `out` as `to`, in parallel. Rounds to nearest even; integers that do not
/// fit into i32 or u8, and floats asked for as integers, are errors that name the tensor and the element.
void convert(const StoredTensor& t, Dtype to, void* out);
template <class X> std::vector<X> read_as(const StoredTensor& t) {
    std::vector<X> values(size_t(t.count()));
    convert(t, dtype_of<X>, values.data());
    return values;
}

/// The tensors of one .safetensors file or of a Hugging Face folder: `model.safetensors`, or the shards that
/// `model.safetensors.index.json` names.
class Checkpoint {
public:
    explicit Checkpoint(const std::string& path);
    const std::string& path() const { return path_; }
    /// In the order of the files and of their data.
    const std::vector<StoredTensor>& tensors() const { return tensors_; }
    const StoredTensor* find(const std::string& name) const; // null where there is none
    const StoredTensor& at(const std::string& name) const;   // an error that names the nearest tensor
    bool has(const std::string& name) const { return find(name); }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

private:
    void add_file(const std::string& path);
    void add_shards(const std::string& folder, const std::string& index_path);
    std::string path_;
    std::vector<std::unique_ptr<MappedFile>> files_;
    std::vector<StoredTensor> tensors_;
    std::map<std::string, size_t> by_name_;
    std::map<std::string, std::string> metadata_;
};
/// True for a .safetensors file and for a folder that holds one or its index.
bool is_checkpoint(const std::string& path);

/// What to write: `data` holds numel(shape) elements of `dtype`, stored as `type` (converted piece by piece
/// while it is written, so a checkpoint never exists twice in memory); or a persistent tensor of any device.
struct TensorSource {
    std::string name;
    Shape shape;
    const void* data;
    Tensor tensor; // in place of data
    Dtype dtype;
    StoredType type;
    TensorSource(std::string n, const Shape& s, const void* p, Dtype d)
        : TensorSource(std::move(n), s, p, d, stored_type(d)) {}
    TensorSource(std::string n, const Shape& s, const void* p, Dtype d, StoredType t)
        : name(std::move(n)), shape(s), data(p), dtype(d), type(t) {}
    TensorSource(std::string n, const Shape& s, const Tensor& t)
        : name(std::move(n)), shape(s), data(nullptr), tensor(t), dtype(t.dtype()),
          type(stored_type(t.dtype())) {}
    int64_t bytes() const { return shape.numel() * size_of(type); }
};

/// One file, atomically. The same bytes as the Python package writes, in whatever order the tensors come.
void write_safetensors(const std::string& path, std::vector<TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

/// `model.safetensors`, or `model-0000i-of-0000n.safetensors` of at most max_shard_bytes each (a larger
/// tensor gets a shard of its own) and their index. The folder must not hold weights yet: write to a new one
/// and publish_directory() it, so that an interruption leaves the old checkpoint whole.
void write_checkpoint(const std::string& folder, const std::vector<TensorSource>& tensors,
                      int64_t max_shard_bytes = 5'000'000'000,
                      const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

} // namespace nvl
