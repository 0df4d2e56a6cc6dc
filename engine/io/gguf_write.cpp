#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/io/gguf.h"
#include "engine/io/printable.h"

namespace nvl {

namespace {
template <class T> constexpr uint32_t value_type() {
    if constexpr (std::is_same_v<T, uint32_t>) return 4;
    if constexpr (std::is_same_v<T, int32_t>) return 5;
    if constexpr (std::is_same_v<T, float>) return 6;
    if constexpr (std::is_same_v<T, bool>) return 7;
    if constexpr (std::is_same_v<T, std::string>) return 8;
    if constexpr (std::is_same_v<T, uint64_t>) return 10;
    if constexpr (std::is_same_v<T, int64_t>) return 11;
    if constexpr (std::is_same_v<T, double>) return 12;
}
template <class T> void put(std::string& out, T v) {
    if constexpr (std::is_same_v<T, bool>)
        out += char(v);
    else
        out.append(reinterpret_cast<const char*>(&v), sizeof v);
}
void put(std::string& out, const std::string& s) {
    put(out, uint64_t(s.size()));
    out += s;
}
template <class T> struct Element {
    using type = T;
    static constexpr bool array = false;
};
template <class T> struct Element<std::vector<T>> {
    using type = T;
    static constexpr bool array = true;
};
void put_value(std::string& out, const GgufWriter::Value& value) {
    std::visit(
        [&]<class V>(const V& v) {
            using E = typename Element<V>::type;
            if constexpr (Element<V>::array) {
                put(out, uint32_t(9)), put(out, value_type<E>()), put(out, uint64_t(v.size()));
                for (E e : v) put(out, e);
            } else
                put(out, value_type<E>()), put(out, v);
        },
        value);
}
uint64_t padded(uint64_t n, uint64_t alignment) { return (n + alignment - 1) / alignment * alignment; }
} // namespace

void GgufWriter::set(const std::string& key, Value value) {
    check(!key.empty() && key.size() <= 65535, "a GGUF key of %zu bytes; expected 1 to 65535", key.size());
    check(key != "general.alignment", "general.alignment is an argument of write()");
    for (auto& [k, v] : values_)
        if (k == key) {
            v = std::move(value);
            return;
        }
    values_.emplace_back(key, std::move(value));
}

void GgufWriter::add(const std::string& name, BlockType type, const Shape& shape,
                     std::span<const std::byte> bytes) {
    check(!name.empty() && shape.rank >= 1 && shape.rank <= 4,
          "tensor \"%s\" %s: GGUF needs a name and 1 to 4 dimensions", printable(name).c_str(),
          shape.text().c_str());
    for (auto& t : tensors_) check(t.name != name, "tensor \"%s\" was added twice", printable(name).c_str());
    check(shape[-1] % block_format(type).elements == 0,
          "tensor \"%s\": rows of %ld elements are no multiple of %s's blocks of %ld",
          printable(name).c_str(), shape[-1].size, name_of(type), block_format(type).elements);
    check(shape.numel() > 0 && int64_t(bytes.size()) == block_bytes(type, shape.numel()),
          "tensor \"%s\" %s: expected %ld bytes of %s, found %zu", printable(name).c_str(),
          shape.text().c_str(), block_bytes(type, shape.numel()), name_of(type), bytes.size());
    tensors_.push_back({name, type, shape, bytes});
}

void GgufWriter::write(const std::string& path, uint32_t alignment) const {
    check(alignment >= 8 && alignment <= 65536 && std::has_single_bit(alignment),
          "an alignment of %u; expected a power of two from 8 to 65536", alignment);
    std::string head = "GGUF";
    put(head, uint32_t(3)), put(head, uint64_t(tensors_.size()));
    put(head, uint64_t(values_.size() + (alignment != 32)));
    if (alignment != 32) put(head, std::string("general.alignment")), put_value(head, alignment);
    for (auto& [key, value] : values_) put(head, key), put_value(head, value);
    uint64_t at = 0;
    for (auto& t : tensors_) {
        put(head, t.name), put(head, uint32_t(t.shape.rank));
        for (int i = t.shape.rank; i-- > 0;) put(head, uint64_t(t.shape[i].size));
        put(head, uint32_t(t.type)), put(head, at);
        at += padded(t.bytes.size(), alignment);
    }
    head.resize(padded(head.size(), alignment), '\0');
    write_file(path, [&](auto& write) {
        write(head.data(), head.size());
        const std::string zeros(alignment, '\0');
        for (auto& t : tensors_) {
            write(t.bytes.data(), t.bytes.size());
            write(zeros.data(), padded(t.bytes.size(), alignment) - t.bytes.size());
        }
    });
}

} // namespace nvl
