#include "engine/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "engine/base/text.h"
#include "engine/io/missing.h"
#include "engine/io/printable.h"

namespace nvl {

namespace {
enum ValueType : uint32_t {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    BOOL,
    STRING,
    ARRAY,
    U64,
    I64,
    F64,
    VALUE_TYPES
};
constexpr uint64_t BYTES[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr const char* NAMES[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                 "bool", "string", "array", "u64", "i64", "f64"};
constexpr uint64_t KEY_LIMIT = 65535,
                   NAME_LIMIT = 1024; // the format's limit for keys; names are 64 in theory

bool is_integer(uint32_t type) { return type <= I32 || type == U64 || type == I64; }
template <class T> T load(const std::byte* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
} // namespace

/// A cursor over the file that never leaves it. `field` says what is being read, for errors.
class Gguf::Reader {
public:
    Reader(const Gguf& g) : file_(g.file_), path_(g.path_) {}
    uint64_t at = 0;
    std::string field = "header";
    uint64_t left() const { return file_.size() - at; }

    [[noreturn]] void reject(const std::string& why) const {
        fail("%s: %s: %s (at byte %lu)", path_.c_str(), field.c_str(), why.c_str(), at);
    }
    std::span<const std::byte> take(uint64_t n) {
        if (n > left())
            reject(format("takes %lu bytes but only %lu are left; is the file cut off?", n, left()));
        at += n;
        return file_.subspan(at - n, n);
    }
    template <class T> T number() { return load<T>(take(sizeof(T)).data()); }
    std::string_view string(uint64_t limit) {
        uint64_t n = number<uint64_t>();
        if (n > limit && limit < left())
            reject(format("a string of %lu bytes, expected at most %lu", n, limit));
        auto bytes = take(n);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    /// A key or a tensor's name.
    std::string name(uint64_t limit) {
        std::string_view s = string(limit);
        if (s.empty()) reject("an empty name");
        if (s.find('\0') != s.npos || utf8_invalid(s))
            reject("the name \"" + printable(s) + "\" is not UTF-8 text");
        return std::string(s);
    }

private:
    static bool utf8_invalid(std::string_view s) {
        for (size_t i = 0; i < s.size();) {
            unsigned char c = static_cast<unsigned char>(s[i]);
            size_t n = c < 0x80                ? 1
                       : c >= 0xc2 && c < 0xe0 ? 2
                       : c >= 0xe0 && c < 0xf0 ? 3
                       : c >= 0xf0 && c < 0xf5 ? 4
                                               : 0;
            if (!n || i + n > s.size()) return true;
            for (size_t k = 1; k < n; k++)
                if ((s[i + k] & 0xc0) != 0x80) return true;
            i += n;
        }
        return false;
    }
    std::span<const std::byte> file_;
    const std::string& path_;
};

Gguf::Gguf(const std::string& path) : map_(std::in_place, path), file_(map_->bytes()), path_(path) {
    parse();
}
Gguf::Gguf(std::span<const std::byte> file, const std::string& path) : file_(file), path_(path) { parse(); }

void Gguf::parse() {
    Reader r(*this);
    r.field = "magic";
    auto magic = r.take(4);
    if (std::memcmp(magic.data(), "GGUF", 4) != 0)
        r.reject("not a GGUF file: found \"" + printable({reinterpret_cast<const char*>(magic.data()), 4}) +
                 "\"");
    r.field = "version";
    version_ = r.number<uint32_t>();
    if (version_ >= 1 << 16) r.reject("a big-endian or damaged file; only little-endian files can be read");
    if (version_ != 2 && version_ != 3) r.reject(format("GGUF version %u; expected 2 or 3", version_));

    // the smallest entry there can be bounds the counts: nothing is reserved for what cannot be there
    r.field = "number of tensors";
    uint64_t n_tensors = r.number<uint64_t>();
    if (n_tensors > r.left() / 33) r.reject(format("%lu tensors do not fit into the file", n_tensors));
    r.field = "number of metadata entries";
    uint64_t n_values = r.number<uint64_t>();
    if (n_values > r.left() / 14) r.reject(format("%lu entries do not fit into the file", n_values));
    read_metadata(r, n_values);
    read_tensors(r, n_tensors);
}

void Gguf::read_metadata(Reader& r, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        r.field = format("metadata entry %lu of %lu: key", i + 1, count);
        std::string key = r.name(KEY_LIMIT);
        r.field = "metadata \"" + printable(key) + "\"";
        if (values_.count(key)) r.reject("the key appears twice");
        Value v;
        v.type = r.number<uint32_t>();
        if (v.type >= VALUE_TYPES) r.reject(format("unknown value type %u", v.type));
        if (v.type == ARRAY) {
            v.array = true;
            v.type = r.number<uint32_t>();
            if (v.type >= VALUE_TYPES) r.reject(format("unknown element type %u", v.type));
            if (v.type == ARRAY) r.reject("an array of arrays, which no model uses");
            v.count = r.number<uint64_t>();
            uint64_t least = v.type == STRING ? 8 : BYTES[v.type];
            if (v.count > r.left() / least)
                r.reject(format("an array of %lu %s does not fit into the file", v.count, NAMES[v.type]));
        }
        uint64_t begin = r.at;
        if (v.type == STRING)
            for (uint64_t k = 0; k < v.count; k++) r.string(UINT64_MAX);
        else
            r.take(v.count * BYTES[v.type]);
        v.bytes = file_.subspan(begin, r.at - begin);
        if (v.type == BOOL)
            for (std::byte b : v.bytes)
                if (b > std::byte(1)) r.reject(format("a bool of value %d, expected 0 or 1", int(b)));
        values_.emplace(std::move(key), v);
    }
    if (has("general.alignment")) {
        r.field = "metadata \"general.alignment\"";
        alignment_ = uint64_t(integer("general.alignment"));
        if (alignment_ < 8 || alignment_ > 65536 || !std::has_single_bit(alignment_))
            r.reject(
                format("an alignment of %ld, expected a power of two from 8 to 65536", int64_t(alignment_)));
    }
    if (auto parts = find_integer("split.count"); parts && *parts > 1)
        fail("%s: is one of %ld parts of a split model; merge them into one file first", path_.c_str(),
             *parts);
}

void Gguf::read_tensors(Reader& r, uint64_t count) {
    struct Place {
        uint64_t begin, bytes, at;
    };
    std::vector<Place> places;
    places.reserve(count), tensors_.reserve(count);
    for (uint64_t i = 0; i < count; i++) {
        r.field = format("tensor %lu of %lu: name", i + 1, count);
        GgufTensor t{.name = r.name(NAME_LIMIT), .type = {}, .shape = {}, .bytes = {}};
        r.field = "tensor \"" + printable(t.name) + "\"";
        if (!by_name_.emplace(t.name, i).second) r.reject("the name appears twice");
        uint32_t rank = r.number<uint32_t>();
        if (rank < 1 || rank > 4) r.reject(format("%u dimensions, expected 1 to 4", rank));
        uint64_t ne[4], elements = 1, bytes = 0;
        for (uint32_t k = 0; k < rank; k++) {
            ne[k] = r.number<uint64_t>();
            if (ne[k] < 1 || ne[k] > INT64_MAX) r.reject(format("dimension %u is %ld", k, int64_t(ne[k])));
            if (__builtin_mul_overflow(elements, ne[k], &elements) || elements > INT64_MAX)
                r.reject("the product of its shape overflows");
        }
        for (uint32_t k = rank; k-- > 0;) t.shape.push(int64_t(ne[k]));
        uint32_t type = r.number<uint32_t>();
        auto* f = find_block_format(type);
        if (!f) r.reject(format("unknown or withdrawn element type %u", type));
        t.type = f->type;
        if (ne[0] % uint64_t(f->elements))
            r.reject(format("rows of %lu elements, not a multiple of %s's blocks of %ld", ne[0], f->name,
                            f->elements));
        if (__builtin_mul_overflow(elements / uint64_t(f->elements), uint64_t(f->bytes), &bytes))
            r.reject("its size in bytes overflows");
        uint64_t offset = r.number<uint64_t>();
        if (offset % alignment_)
            r.reject(format("offset %lu is not a multiple of the alignment %lu", offset, alignment_));
        places.push_back({offset, bytes, r.at});
        tensors_.push_back(std::move(t));
    }
    if (!count) return;
    uint64_t start = (r.at + alignment_ - 1) / alignment_ * alignment_, size = file_.size();
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; i++) order[i] = i;
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return places[a].begin < places[b].begin; });
    uint64_t end = 0;
    for (size_t i : order) {
        auto [begin, bytes, at] = places[i];
        r.field = "tensor \"" + printable(tensors_[i].name) + "\"", r.at = at;
        if (begin < end) r.reject("overlaps the tensor before it");
        if (start > size || begin > size - start || bytes > size - start - begin)
            r.reject(format("%lu bytes from %lu of the data reach past the end of the file; is it cut off?",
                            bytes, begin));
        tensors_[i].bytes = file_.subspan(start + begin, bytes);
        end = begin + bytes;
    }
}

const GgufTensor* Gguf::find(const std::string& name) const {
    auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
}
const GgufTensor& Gguf::at(const std::string& name) const {
    if (auto* t = find(name)) return *t;
    no_such_tensor(path_, name, tensors_);
}

std::vector<std::string> Gguf::keys() const {
    std::vector<std::string> names;
    for (auto& [key, value] : values_) names.push_back(key);
    return names;
}
const Gguf::Value* Gguf::find_value(const std::string& key) const {
    auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
}
const Gguf::Value& Gguf::value(const std::string& key) const {
    if (auto* v = find_value(key)) return *v;
    std::string near = nearest(key, keys());
    fail("%s: the metadata \"%s\" is missing%s", path_.c_str(), key.c_str(),
         near.empty() ? "" : ("; there is \"" + printable(near) + "\"").c_str());
}
void Gguf::expect(bool ok, const std::string& key, const char* wanted) const {
    const Value& v = value(key);
    check(ok, "%s: the metadata \"%s\" is %s%s; expected %s", path_.c_str(), key.c_str(),
          v.array ? "an array of " : "", NAMES[v.type], wanted);
}
int64_t Gguf::integer_at(const std::string& key, const Value& v, uint64_t i) const {
    auto* p = v.bytes.data() + i * BYTES[v.type];
    switch (v.type) {
    case U8: return load<uint8_t>(p);
    case I8: return load<int8_t>(p);
    case U16: return load<uint16_t>(p);
    case I16: return load<int16_t>(p);
    case U32: return load<uint32_t>(p);
    case I32: return load<int32_t>(p);
    }
    int64_t n = load<int64_t>(p);
    check(v.type == I64 || n >= 0, "%s: the metadata \"%s\" holds %lu, more than any model has",
          path_.c_str(), key.c_str(), uint64_t(n));
    return n;
}
double Gguf::number_at(const std::string& key, const Value& v, uint64_t i) const {
    auto* p = v.bytes.data() + i * BYTES[v.type];
    return v.type == F32   ? double(load<float>(p))
           : v.type == F64 ? load<double>(p)
                           : double(integer_at(key, v, i));
}

std::string Gguf::string(const std::string& key) const {
    const Value& v = value(key);
    expect(!v.array && v.type == STRING, key, "a string");
    return {reinterpret_cast<const char*>(v.bytes.data()) + 8, v.bytes.size() - 8};
}
int64_t Gguf::integer(const std::string& key) const {
    const Value& v = value(key);
    expect(!v.array && is_integer(v.type), key, "an integer");
    return integer_at(key, v, 0);
}
double Gguf::number(const std::string& key) const {
    const Value& v = value(key);
    expect(!v.array && (is_integer(v.type) || v.type == F32 || v.type == F64), key, "a number");
    return number_at(key, v, 0);
}
bool Gguf::boolean(const std::string& key) const {
    const Value& v = value(key);
    expect(!v.array && v.type == BOOL, key, "a bool");
    return v.bytes[0] != std::byte(0);
}
std::vector<std::string> Gguf::strings(const std::string& key) const {
    const Value& v = value(key);
    expect(v.array && v.type == STRING, key, "an array of strings");
    std::vector<std::string> list;
    list.reserve(v.count);
    for (auto* p = v.bytes.data(); list.size() < v.count;) {
        uint64_t n = load<uint64_t>(p);
        list.emplace_back(reinterpret_cast<const char*>(p) + 8, n);
        p += 8 + n;
    }
    return list;
}
std::vector<int64_t> Gguf::integers(const std::string& key) const {
    const Value& v = value(key);
    expect(v.array && (is_integer(v.type) || v.type == BOOL), key, "an array of integers");
    std::vector<int64_t> list(v.count);
    for (uint64_t i = 0; i < v.count; i++)
        list[i] = v.type == BOOL ? int64_t(v.bytes[i]) : integer_at(key, v, i);
    return list;
}
std::vector<double> Gguf::numbers(const std::string& key) const {
    const Value& v = value(key);
    expect(v.array && (is_integer(v.type) || v.type == F32 || v.type == F64), key, "an array of numbers");
    std::vector<double> list(v.count);
    for (uint64_t i = 0; i < v.count; i++) list[i] = number_at(key, v, i);
    return list;
}

template <class F> auto Gguf::optional(const std::string& key, F read) const {
    return has(key) ? std::optional((this->*read)(key)) : std::nullopt;
}
std::optional<std::string> Gguf::find_string(const std::string& k) const {
    return optional(k, &Gguf::string);
}
std::optional<int64_t> Gguf::find_integer(const std::string& k) const { return optional(k, &Gguf::integer); }
std::optional<double> Gguf::find_number(const std::string& k) const { return optional(k, &Gguf::number); }
std::optional<bool> Gguf::find_boolean(const std::string& k) const { return optional(k, &Gguf::boolean); }
std::optional<std::vector<std::string>> Gguf::find_strings(const std::string& k) const {
    return optional(k, &Gguf::strings);
}
std::optional<std::vector<int64_t>> Gguf::find_integers(const std::string& k) const {
    return optional(k, &Gguf::integers);
}
std::optional<std::vector<double>> Gguf::find_numbers(const std::string& k) const {
    return optional(k, &Gguf::numbers);
}
bool Gguf::is_array(const std::string& key) const { return value(key).array; }

std::string Gguf::text(const std::string& key) const {
    const Value& v = value(key);
    if (v.array) return format("%lu x %s", v.count, NAMES[v.type]);
    if (v.type == STRING) return printable(string(key));
    if (v.type == BOOL) return boolean(key) ? "true" : "false";
    return is_integer(v.type) ? std::to_string(integer(key)) : format("%.9g", number(key));
}

} // namespace nvl
