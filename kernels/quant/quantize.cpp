#include "kernels/quant/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/base/parallel.h"
#include "kernels/quant/blocks.h"

namespace nvl {

namespace {
using namespace quant;

/// A block of one element of a plain type.
template <class X> struct Plain {
    static constexpr int ELEMENTS = 1;
    X value;
    void decode(float* y) const { *y = float(value); }
};
struct Half {
    static constexpr int ELEMENTS = 1;
    uint16_t bits;
    void decode(float* y) const { *y = half_to_float(bits); }
};

/// Calls f with the block struct of t; false if there is none.
template <class F> bool with_block(BlockType t, F f) {
    switch (t) {
    case BlockType::f32: f.template operator()<Plain<float>>(); break;
    case BlockType::f64: f.template operator()<Plain<double>>(); break;
    case BlockType::bf16: f.template operator()<Plain<bf16>>(); break;
    case BlockType::f16: f.template operator()<Half>(); break;
    case BlockType::i8: f.template operator()<Plain<int8_t>>(); break;
    case BlockType::i16: f.template operator()<Plain<int16_t>>(); break;
    case BlockType::i32: f.template operator()<Plain<int32_t>>(); break;
    case BlockType::i64: f.template operator()<Plain<int64_t>>(); break;
    case BlockType::q4_0: f.template operator()<Q4_0>(); break;
    case BlockType::q4_1: f.template operator()<Q4_1>(); break;
    case BlockType::q5_0: f.template operator()<Q5_0>(); break;
    case BlockType::q5_1: f.template operator()<Q5_1>(); break;
    case BlockType::q8_0: f.template operator()<Q8_0>(); break;
    case BlockType::q2_k: f.template operator()<Q2_K>(); break;
    case BlockType::q3_k: f.template operator()<Q3_K>(); break;
    case BlockType::q4_k: f.template operator()<Q4_K>(); break;
    case BlockType::q5_k: f.template operator()<Q5_K>(); break;
    case BlockType::q6_k: f.template operator()<Q6_K>(); break;
    case BlockType::q8_k: f.template operator()<Q8_K>(); break;
    case BlockType::iq4_nl: f.template operator()<IQ4_NL>(); break;
    case BlockType::iq4_xs: f.template operator()<IQ4_XS>(); break;
    case BlockType::mxfp4: f.template operator()<MXFP4>(); break;
    default: return false;
    }
    return true;
}

template <class Block, class To> void decode_all(const std::byte* bytes, int64_t n, To* out) {
    constexpr int E = Block::ELEMENTS;
    parallel_for(n / E, std::max(1, 32768 / E), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            Block b; // a copy: the bytes of a plain type may be unaligned
            std::memcpy(&b, bytes + i * int64_t(sizeof b), sizeof b);
            if constexpr (std::is_same_v<To, float>)
                b.decode(out + i * E);
            else {
                float y[E];
                b.decode(y);
                for (int j = 0; j < E; j++) out[i * E + j] = To(y[j]);
            }
        }
    });
}

template <class To> void decode_as(BlockType t, std::span<const std::byte> bytes, int64_t n, To* out) {
    check(int64_t(bytes.size()) == block_bytes(t, n),
          "dequantize: %ld elements of %s take %ld bytes, found %zu", n, name_of(t), block_bytes(t, n),
          bytes.size());
    bool known = with_block(t, [&]<class B> {
        static_assert(sizeof(B) > 0);
        check(block_format(t).bytes == sizeof(B) && block_format(t).elements == B::ELEMENTS,
              "%s: layout and table differ", name_of(t));
        decode_all<B>(bytes.data(), n, out);
    });
    check(known, "tensors of type %s cannot be read yet; use a file in another quantisation", name_of(t));
}
} // namespace

bool can_dequantize(BlockType t) {
    return with_block(t, []<class B> {});
}
void dequantize(BlockType t, std::span<const std::byte> bytes, int64_t n, float* out) {
    decode_as(t, bytes, n, out);
}
void dequantize(BlockType t, std::span<const std::byte> bytes, int64_t n, Dtype to, void* out) {
    switch (to) {
    case Dtype::f64: return decode_as(t, bytes, n, static_cast<double*>(out));
    case Dtype::f32: return decode_as(t, bytes, n, static_cast<float*>(out));
    case Dtype::bf16: return decode_as(t, bytes, n, static_cast<bf16*>(out));
    case Dtype::f16: return decode_as(t, bytes, n, static_cast<f16*>(out));
    default: fail("dequantize: to %s; expected f64, f32, bf16 or f16", name_of(to));
    }
}

namespace {
/// The f16 of a scale, and what to multiply by instead of dividing by it: 0 where the scale vanishes.
uint16_t store_scale(float d, float& inverse) {
    inverse = d != 0 && std::isfinite(1 / d) ? 1 / d : 0;
    f16 h(d);
    check(std::isfinite(float(h)), "quantize: values too large for a block's f16 scale");
    return h.bits;
}
void encode(const float* x, Q8_0& b) {
    float largest = 0;
    for (int j = 0; j < 32; j++) largest = std::max(largest, std::fabs(x[j]));
    float inverse;
    b.d = store_scale(largest / 127, inverse);
    for (int j = 0; j < 32; j++) b.q[j] = int8_t(std::round(x[j] * inverse));
}
/// trunc(x * inverse + add), at most 15
int nibble(float x, float inverse, float add) { return std::min(15, int(x * inverse + add)); }

void encode(const float* x, Q4_0& b) {
    float extreme = 0;
    for (int j = 0; j < 32; j++)
        if (std::fabs(x[j]) > std::fabs(extreme)) extreme = x[j];
    float inverse;
    b.d = store_scale(extreme / -8, inverse);
    for (int j = 0; j < 16; j++)
        b.q[j] = uint8_t(nibble(x[j], inverse, 8.5f) | nibble(x[j + 16], inverse, 8.5f) << 4);
}
void encode(const float* x, Q4_1& b) {
    float least = *std::min_element(x, x + 32), inverse, unused;
    b.d = store_scale((*std::max_element(x, x + 32) - least) / 15, inverse);
    b.m = store_scale(least, unused);
    for (int j = 0; j < 16; j++)
        b.q[j] = uint8_t(nibble(x[j] - least, inverse, 0.5f) | nibble(x[j + 16] - least, inverse, 0.5f) << 4);
}
void encode(const float* x, Half& b) { b.bits = f16(*x).bits; }
void encode(const float* x, Plain<bf16>& b) { b.value = bf16(*x); }
void encode(const float* x, Plain<float>& b) { b.value = *x; }

template <class Block> void encode_all(const float* x, int64_t n, void* out) {
    constexpr int E = Block::ELEMENTS;
    parallel_for(n / E, std::max(1, 32768 / E), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            for (int j = 0; j < E; j++)
                check(std::isfinite(x[i * E + j]), "quantize: element %ld is %g", i * E + j,
                      double(x[i * E + j]));
            Block b;
            encode(x + i * E, b);
            std::memcpy(static_cast<std::byte*>(out) + i * int64_t(sizeof b), &b, sizeof b);
        }
    });
}
} // namespace

void quantize(BlockType t, const float* x, int64_t n, void* out) {
    block_bytes(t, n); // n is a multiple of the block
    switch (t) {
    case BlockType::q8_0: return encode_all<Q8_0>(x, n, out);
    case BlockType::q4_0: return encode_all<Q4_0>(x, n, out);
    case BlockType::q4_1: return encode_all<Q4_1>(x, n, out);
    case BlockType::f32: return encode_all<Plain<float>>(x, n, out);
    case BlockType::f16: return encode_all<Half>(x, n, out);
    case BlockType::bf16: return encode_all<Plain<bf16>>(x, n, out);
    default: fail("quantize: to %s; expected Q8_0, Q4_0, Q4_1, F32, F16 or BF16", name_of(t));
    }
}
std::vector<std::byte> quantize(BlockType t, std::span<const float> x) {
    std::vector<std::byte> bytes(size_t(block_bytes(t, int64_t(x.size()))));
    quantize(t, x.data(), int64_t(x.size()), bytes.data());
    return bytes;
}

} // namespace nvl
