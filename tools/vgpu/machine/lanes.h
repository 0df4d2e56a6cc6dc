// Turns a function of scalars into an instruction of a warp:
//   of<[](float a, float b) { return a + b; }>()   reads two registers, writes one, for the lanes of the
//   mask.
// bool stands for a predicate register, whose 32 lanes are the bits of a word.
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "tools/vgpu/machine/warp.h"

namespace vgpu {

/// How an instruction runs and what its operands are, the result first: p predicate, h 16, w 32, x 64 bits,
/// f float, d double.
struct Implementation {
    Exec exec;
    const char* operands;
    Flow flow = Flow::next;
};

template <class T> constexpr char letter_of() {
    if constexpr (std::is_same_v<T, bool>)
        return 'p';
    else if constexpr (std::is_same_v<T, float>)
        return 'f';
    else if constexpr (std::is_same_v<T, double>)
        return 'd';
    else
        return sizeof(T) == 2 ? 'h' : sizeof(T) == 4 ? 'w' : 'x';
}

/// Bits of 32 bytes that are 0 or 0xff.
inline uint32_t bits_of(const uint8_t* b) {
#ifdef __AVX2__
    return uint32_t(_mm256_movemask_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b))));
#else
    uint32_t m = 0;
    for (int i = 0; i < 32; i++) m |= uint32_t(b[i] & 1) << i;
    return m;
#endif
}

/// A source operand by lane; predicates may be negated by a flag of the op.
template <class T> struct Source {
    const T* p;
    Source(Warp& w, const Op& op, int k) : p(w.at<T>(op.r[k])) {}
    T operator[](int i) const { return p[i]; }
};
template <> struct Source<bool> {
    uint32_t bits;
    Source(Warp& w, const Op& op, int k) : bits(w.predicate(op.r[k]) ^ (op.flags >> k & 1 ? ~0u : 0u)) {}
    bool operator[](int i) const { return bits >> i & 1; }
};

template <auto F, class D, class... S, size_t... I> [[gnu::always_inline]] inline void
map_lanes(Warp& w, const Op& op, uint32_t mask, D (*)(S...), std::index_sequence<I...>) {
    std::tuple<Source<S>...> s{Source<S>(w, op, int(I) + 1)...};
    if constexpr (std::is_same_v<D, bool>) {
        uint8_t b[32];
        for (int i = 0; i < 32; i++) b[i] = F(std::get<I>(s)[i]...) ? 0xff : 0;
        uint32_t& d = w.predicate(op.r[0]);
        d = (d & ~mask) | (bits_of(b) & mask);
    } else {
        D* d = w.at<D>(op.r[0]);
        if (mask == ~0u) {
#pragma GCC ivdep
            for (int i = 0; i < 32; i++) d[i] = F(std::get<I>(s)[i]...);
        } else {
#pragma GCC ivdep
            for (int i = 0; i < 32; i++) {
                D v = F(std::get<I>(s)[i]...);
                d[i] = mask >> i & 1 ? v : d[i];
            }
        }
    }
}

template <auto F, class D, class... S> void execute_map(Warp& w, const Op& op, uint32_t mask) {
    map_lanes<F>(w, op, mask, static_cast<D (*)(S...)>(nullptr), std::index_sequence_for<S...>{});
}

template <class... T> constexpr char letters_of[] = {letter_of<T>()..., 0};

template <auto F, class D, class... S> constexpr Implementation implementation(D (*)(S...)) {
    return {execute_map<F, D, S...>, letters_of<D, S...>};
}

template <auto F> constexpr Implementation of() { return implementation<F>(+F); }

/// Writes lanes of the mask only.
template <class T> inline void blend(T* d, const T* v, uint32_t mask) {
    if (mask == ~0u) {
        for (int i = 0; i < 32; i++) d[i] = v[i];
    } else {
        for (int i = 0; i < 32; i++) d[i] = mask >> i & 1 ? v[i] : d[i];
    }
}

} // namespace vgpu
