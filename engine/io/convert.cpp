#include "engine/io/convert.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "engine/base/parallel.h"
#include "engine/io/printable.h"

namespace nvl {

namespace {
template <class F> void with_type(StoredType t, F f) {
    switch (t) {
    case StoredType::boolean:
    case StoredType::u8: return f.template operator()<uint8_t>();
    case StoredType::i8: return f.template operator()<int8_t>();
    case StoredType::i16: return f.template operator()<int16_t>();
    case StoredType::u16: return f.template operator()<uint16_t>();
    case StoredType::i32: return f.template operator()<int32_t>();
    case StoredType::u32: return f.template operator()<uint32_t>();
    case StoredType::i64: return f.template operator()<int64_t>();
    case StoredType::u64: return f.template operator()<uint64_t>();
    case StoredType::f16: return f.template operator()<f16>();
    case StoredType::bf16: return f.template operator()<bf16>();
    case StoredType::f32: return f.template operator()<float>();
    case StoredType::f64: return f.template operator()<double>();
    case StoredType::f8_e5m2:
    case StoredType::f8_e4m3:
        fail("%s cannot be converted; expected F64, F32, BF16, F16 or an integer type", name_of(t));
    }
    fail("unknown element type %d", int(t));
}

/// A float between v and zero-or-away whose last bit is odd where v is not a float: rounding it again to a
/// shorter format gives what rounding v once would.
float round_to_odd(double v) {
    float f = float(v);
    if (v != v || double(f) == v || std::bit_cast<uint32_t>(f) & 1) return f;
    return std::nextafter(f, v > double(f) ? INFINITY : -INFINITY);
}

template <class From, class To> To one(From v, const StoredTensor& t, int64_t index) {
    constexpr bool from_integer = std::is_integral_v<From>;
    if constexpr (std::is_integral_v<To>) {
        if constexpr (!from_integer) {
            fail("tensor \"%s\" is %s; expected integers", printable(t.name).c_str(), name_of(t.type));
        } else {
            check(std::in_range<To>(v), "tensor \"%s\": element %ld is %s, which does not fit into %zu bits",
                  printable(t.name).c_str(), index, std::to_string(v).c_str(), 8 * sizeof(To));
            return To(v);
        }
    } else if constexpr (std::is_same_v<To, bf16> || std::is_same_v<To, f16>) {
        if constexpr (std::is_same_v<From, double> || (from_integer && sizeof(From) >= 4))
            return To(round_to_odd(double(v)));
        else
            return To(float(v));
    } else if constexpr (std::is_same_v<From, bf16> || std::is_same_v<From, f16>)
        return To(float(v));
    else
        return To(v);
}
} // namespace

void convert_range(const StoredTensor& t, StoredType to, int64_t begin, int64_t n, void* out) {
    if (n == 0) return;
    const std::byte* source = t.bytes.data() + begin * size_of(t.type);
    parallel_for(n, 1 << 15, [&](int64_t first, int64_t last) {
        if (t.type == to) {
            std::memcpy(static_cast<std::byte*>(out) + first * size_of(to), source + first * size_of(to),
                        size_t((last - first) * size_of(to)));
            return;
        }
        with_type(t.type, [&]<class From> {
            with_type(to, [&]<class To> {
                auto* y = static_cast<To*>(out);
                for (int64_t i = first; i < last; i++) {
                    From v; // the bytes of a mapped file need not be aligned
                    std::memcpy(&v, source + i * int64_t(sizeof(From)), sizeof(From));
                    y[i] = one<From, To>(v, t, begin + i);
                }
            });
        });
    });
}

StoredType stored_type(Dtype d) {
    switch (d) {
    case Dtype::f64: return StoredType::f64;
    case Dtype::f32: return StoredType::f32;
    case Dtype::bf16: return StoredType::bf16;
    case Dtype::f16: return StoredType::f16;
    case Dtype::i32: return StoredType::i32;
    case Dtype::u8: return StoredType::u8;
    }
    fail("unknown dtype %d", int(d));
}

void convert(const StoredTensor& t, Dtype to, void* out) {
    convert_range(t, stored_type(to), 0, t.count(), out);
}

} // namespace nvl
