#include "engine/io/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "engine/io/printable.h"

namespace nvl {

namespace {
constexpr uint64_t HEADER_LIMIT = 100'000'000; // the limit of the reference implementation

struct TypeInfo {
    const char* name;
    int64_t bytes;
};
constexpr TypeInfo TYPES[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                              {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                              {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};

/// Reads the JSON as a stream of events: memory grows with the tensors that were accepted, not with what a
/// hostile header nests.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
public:
    HeaderReader(const std::string& path, uint64_t data_bytes) : path_(path), data_bytes_(data_bytes) {}
    SafetensorsHeader header;
    struct Place {
        uint64_t begin, end;
        size_t tensor;
    };
    std::vector<Place> places;

    bool start_object(size_t) override {
        if (where_ == File)
            where_ = Top;
        else if (where_ == Top && key_ == "__metadata__")
            where_ = Metadata;
        else if (where_ == Top) {
            where_ = Tensor;
            type_.clear(), shape_.clear(), offsets_.clear();
            seen_ = 0;
        } else
            wrong("an object");
        return true;
    }
    bool key(std::string& k) override {
        if (where_ == Top) {
            key_ = k;
            check(names_.insert(k).second, "%s: header: the key \"%s\" appears twice", path(),
                  printable(k).c_str());
        } else if (where_ == Metadata) {
            field_ = k;
            check(!header.metadata.count(k), "%s: header: __metadata__: the key \"%s\" appears twice", path(),
                  printable(k).c_str());
        } else {
            field_ = k;
            int bit = k == "dtype" ? 1 : k == "shape" ? 2 : k == "data_offsets" ? 4 : 0;
            check(bit, "%s: tensor \"%s\": expected dtype, shape and data_offsets, found the key \"%s\"",
                  path(), name(), printable(k).c_str());
            check(!(seen_ & bit), "%s: tensor \"%s\": the key \"%s\" appears twice", path(), name(),
                  k.c_str());
            seen_ |= bit;
        }
        return true;
    }
    bool start_array(size_t) override {
        if (where_ != Tensor || field_ == "dtype") wrong("an array");
        where_ = Array;
        return true;
    }
    bool end_array() override {
        where_ = Tensor;
        return true;
    }
    bool number_unsigned(uint64_t n) override {
        if (where_ != Array) wrong("a number");
        auto& list = field_ == "shape" ? shape_ : offsets_;
        check(list.size() < size_t(field_ == "shape" ? MAX_RANK : 2),
              "%s: tensor \"%s\": %s has more than %d entries", path(), name(), field_.c_str(),
              field_ == "shape" ? MAX_RANK : 2);
        check(n <= INT64_MAX, "%s: tensor \"%s\": %s holds %lu, more than any file has", path(), name(),
              field_.c_str(), n);
        list.push_back(n);
        return true;
    }
    bool string(std::string& s) override {
        if (where_ == Metadata)
            header.metadata[field_] = s;
        else if (where_ == Tensor && field_ == "dtype")
            type_ = s;
        else
            wrong("a string");
        return true;
    }
    bool end_object() override {
        if (where_ == Tensor) finish_tensor();
        where_ = where_ == Top ? File : Top;
        return true;
    }
    bool null() override { return wrong("null"); }
    bool boolean(bool) override { return wrong("a boolean"); }
    bool number_integer(int64_t n) override { return wrong("a negative number"); }
    bool number_float(double, const std::string&) override {
        return wrong("a fraction or a number beyond 64 bits");
    }
    bool binary(nlohmann::json::binary_t&) override { return wrong("binary data"); }
    bool parse_error(size_t at, const std::string&, const nlohmann::json::exception& e) override {
        fail("%s: header: not JSON at byte %zu: %s", path(), at + 7, printable(e.what()).c_str());
    }

private:
    enum Where { File, Top, Metadata, Tensor, Array };

    bool wrong(const char* found) {
        if (where_ == File) fail("%s: header: expected an object, found %s", path(), found);
        if (where_ == Top) fail("%s: header: \"%s\": expected an object, found %s", path(), name(), found);
        if (where_ == Metadata)
            fail("%s: header: __metadata__: \"%s\": expected a string, found %s", path(),
                 printable(field_).c_str(), found);
        fail("%s: tensor \"%s\": %s: expected %s, found %s", path(), name(), field_.c_str(),
             field_ == "dtype" ? "a string" : "a list of whole numbers", found);
    }
    void finish_tensor() {
        check(seen_ == 7, "%s: tensor \"%s\": %s is missing", path(), name(),
              !(seen_ & 1)   ? "dtype"
              : !(seen_ & 2) ? "shape"
                             : "data_offsets");
        StoredTensor t{.name = key_, .type = {}, .shape = {}, .bytes = {}};
        auto* info =
            std::find_if(std::begin(TYPES), std::end(TYPES), [&](auto& i) { return type_ == i.name; });
        check(info != std::end(TYPES), "%s: tensor \"%s\": unknown dtype \"%s\"", path(), name(),
              printable(type_).c_str());
        t.type = StoredType(info - TYPES);
        uint64_t extent =
            uint64_t(info->bytes); // zeros left out: (0, 2^40, 2^40) would overflow in strides later
        for (uint64_t n : shape_) {
            t.shape.push(int64_t(n));
            check(!__builtin_mul_overflow(extent, std::max<uint64_t>(n, 1), &extent) && extent <= INT64_MAX,
                  "%s: tensor \"%s\": the product of its shape overflows", path(), name());
        }
        uint64_t bytes = std::count(shape_.begin(), shape_.end(), 0u) ? 0 : extent;
        check(offsets_.size() == 2, "%s: tensor \"%s\": data_offsets has %zu entries, expected 2", path(),
              name(), offsets_.size());
        uint64_t begin = offsets_[0], end = offsets_[1];
        check(begin <= end && end <= data_bytes_,
              "%s: tensor \"%s\": data_offsets [%lu, %lu] do not lie in the %lu bytes of data%s", path(),
              name(), begin, end, data_bytes_, begin <= end ? "; is the file cut off?" : "");
        check(end - begin == bytes,
              "%s: tensor \"%s\": %s of this shape takes %lu bytes, data_offsets give %lu", path(), name(),
              info->name, bytes, end - begin);
        places.push_back({begin, end, header.tensors.size()});
        header.tensors.push_back(std::move(t));
    }
    const char* path() const { return path_.c_str(); }
    const char* name() { return (shown_ = printable(key_)).c_str(); }

    const std::string& path_;
    uint64_t data_bytes_;
    Where where_ = File;
    std::string key_, field_, type_, shown_;
    std::vector<uint64_t> shape_, offsets_;
    int seen_ = 0; // bits: dtype, shape, data_offsets
    std::set<std::string> names_;
};
} // namespace

int64_t size_of(StoredType t) { return TYPES[int(t)].bytes; }
const char* name_of(StoredType t) { return TYPES[int(t)].name; }

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& path) {
    check(file.size() >= 8, "%s: not a safetensors file: %zu bytes, expected at least 8", path.c_str(),
          file.size());
    uint64_t n = 0;
    std::memcpy(&n, file.data(), 8);
    check(n >= 2 && n <= HEADER_LIMIT, "%s: not a safetensors file: a header of %lu bytes, expected 2 to %lu",
          path.c_str(), n, HEADER_LIMIT);
    check(n <= file.size() - 8, "%s: the header takes %lu bytes but the file ends after %zu; is it cut off?",
          path.c_str(), n, file.size() - 8);
    auto* text = reinterpret_cast<const char*>(file.data()) + 8;
    check(text[0] == '{', "%s: header: expected '{' at byte 8, found \"%s\"", path.c_str(),
          printable({text, 1}).c_str());
    auto data = file.subspan(8 + n);
    HeaderReader reader(path, data.size());
    nlohmann::json::sax_parse(text, text + n, &reader);

    auto& places = reader.places;
    std::sort(places.begin(), places.end(), [](auto& a, auto& b) {
        return std::tie(a.begin, a.end, a.tensor) < std::tie(b.begin, b.end, b.tensor);
    });
    SafetensorsHeader sorted{.tensors = {}, .metadata = std::move(reader.header.metadata)};
    sorted.tensors.reserve(places.size());
    uint64_t at = 0;
    for (auto& p : places) {
        StoredTensor& t = reader.header.tensors[p.tensor];
        check(p.begin == at, "%s: tensor \"%s\": begins at byte %lu of the data, %s", path.c_str(),
              printable(t.name).c_str(), p.begin,
              p.begin < at ? "inside the tensor before it" : "after a hole");
        t.bytes = data.subspan(p.begin, p.end - p.begin);
        at = p.end;
        sorted.tensors.push_back(std::move(t));
    }
    check(at == data.size(), "%s: the tensors end at byte %lu of the data, the file at %zu", path.c_str(), at,
          data.size());
    return sorted;
}

} // namespace nvl
