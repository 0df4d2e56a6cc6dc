// One PTX kernel around a few instructions: %a, %b, %c, %e are operands of every thread, %d is the result.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tools/vgpu/machine/launch.h"
#include "tools/vgpu/report.h"

namespace vgpu {

constexpr uint32_t THREADS = 128;

/// Arguments as a kernel's parameters lie in memory.
class Arguments {
public:
    template <class T> Arguments& add(T v) {
        size_t at = (bytes.size() + alignof(T) - 1) / alignof(T) * alignof(T);
        bytes.resize(at + sizeof v);
        std::memcpy(bytes.data() + at, &v, sizeof v);
        return *this;
    }
    std::vector<std::byte> bytes;
};

inline std::string module_text(const std::string& inside) {
    return ".version 8.6\n.target sm_90a\n.address_size 64\n" + inside;
}

/// Runs the kernel "k" of a module's text.
struct Kernel {
    Dim3 grid{1}, block{THREADS};
    uint32_t dynamic_shared = 0;
    uint64_t seed = 0;
    Observer* observer = nullptr;
    Numerics numerics = Numerics::sequential;
    Dim3 cluster{1};
    void operator()(const std::string& text, const Arguments& arguments) const {
        auto module = load_module(text, 90, "test");
        Launch l;
        l.function = module->find("k");
        l.grid = grid, l.block = block, l.cluster = cluster, l.dynamic_shared = dynamic_shared;
        l.parameters = arguments.bytes, l.seed = seed, l.observer = observer, l.numerics = numerics;
        l.limit = 100'000'000;
        run(l);
    }
};

template <class T> std::string type_of() {
    return sizeof(T) == 2 ? ".b16" : sizeof(T) == 4 ? ".b32" : ".b64";
}

namespace ptx_kernel {
template <class T> std::string declare(const std::string& name) {
    if (std::is_same_v<T, bool>) return ".reg .pred " + name + "; ";
    return ".reg " + type_of<T>() + " " + name + "; ";
}
template <class T> std::string load(const std::string& name, size_t k) {
    std::string address = "ld.param.u64 %base, [p" + std::to_string(k) + "]; ";
    if (std::is_same_v<T, bool>)
        return address + "add.s64 %at, %base, %thread; ld.global.u8 %bit, [%at]; setp.ne.b16 " + name +
               ", %bit, 0; ";
    return address + "mad.lo.s64 %at, %thread, " + std::to_string(sizeof(T)) + ", %base; ld.global" +
           type_of<T>() + " " + name + ", [%at]; ";
}
template <class T> std::string store(size_t k) {
    std::string address = "ld.param.u64 %base, [p" + std::to_string(k) + "]; ";
    if (std::is_same_v<T, bool>)
        return address + "add.s64 %at, %base, %thread; selp.b16 %bit, 1, 0, %d; st.global.u8 [%at], %bit; ";
    return address + "mad.lo.s64 %at, %thread, " + std::to_string(sizeof(T)) + ", %base; st.global" +
           type_of<T>() + " [%at], %d; ";
}
} // namespace ptx_kernel

/// The results of `body` in THREADS threads; inputs have so many elements. Predicates are bytes.
template <class T> using Stored = std::conditional_t<std::is_same_v<T, bool>, uint8_t, T>;

template <class D, class... S>
std::vector<Stored<D>> results(const std::string& body, const std::vector<Stored<S>>&... in) {
    const char* names[] = {"%a", "%b", "%c", "%e"};
    std::string head = ".visible .entry k(", declarations = ptx_kernel::declare<D>("%d"), loads;
    for (size_t k = 0; k <= sizeof...(S); k++)
        head += std::string(k ? ", " : "") + ".param .u64 p" + std::to_string(k);
    size_t k = 0;
    ((declarations += ptx_kernel::declare<S>(names[k]), loads += ptx_kernel::load<S>(names[k], k), k++), ...);
    std::string text =
        module_text(head + ") {\n" + declarations +
                    ".reg .b64 %base, %at, %thread; .reg .b32 %t; .reg .b16 %bit;\n"
                    "mov.u32 %t, %tid.x; cvt.u64.u32 %thread, %t;\n" +
                    loads + "\n" + body + "\n" + ptx_kernel::store<D>(sizeof...(S)) + "\nret;\n}\n");
    std::vector<Stored<D>> out(THREADS);
    Arguments arguments;
    (arguments.add(in.data()), ...);
    arguments.add(out.data());
    Kernel{}(text, arguments);
    return out;
}

/// Values of a type that are worth trying: its edges, then random bits.
template <class T> std::vector<T> interesting(uint32_t seed) {
    std::vector<T> v(THREADS);
    for (uint32_t i = 0; i < THREADS; i++) {
        seed = seed * 1664525 + 1013904223;
        uint64_t bits = uint64_t(seed) << 32 | (seed * 22695477u + 1);
        bits ^= bits >> 29;
        if constexpr (std::is_floating_point_v<T>) {
            T edges[] = {T(0),
                         T(-0.0),
                         T(1),
                         T(-1),
                         T(0.5),
                         std::numeric_limits<T>::infinity(),
                         -std::numeric_limits<T>::infinity(),
                         std::numeric_limits<T>::quiet_NaN(),
                         T(1e-40),
                         T(-3e-39),
                         T(3.4e38),
                         T(2.5),
                         T(-2.5),
                         T(1.5),
                         T(1e9),
                         T(-1e10)};
            if (seed >> 28 < 5)
                v[i] = edges[seed >> 20 & 15];
            else
                v[i] = (T(int64_t(bits)) / T(1ull << 62)) * std::exp2(T(int(seed >> 16 & 31) - 12));
        } else {
            T edges[] = {T(0), T(1),  T(-1), std::numeric_limits<T>::min(), std::numeric_limits<T>::max(),
                         T(2), T(31), T(32)};
            v[i] = seed >> 28 < 5    ? edges[seed >> 20 & 7]
                   : seed >> 28 < 10 ? T(bits >> 20 & 63)
                                     : T(bits >> 13);
        }
    }
    return v;
}

template <class T> bool equal_bits(T a, T b) {
    if (a != a || b != b) return a != a && b != b; // any NaN
    return std::memcmp(&a, &b, sizeof a) == 0;
}

/// `body` gives what f gives, for interesting operands.
template <class D, class... S> void expect_like(const std::string& body, D (*f)(S...)) {
    uint32_t seed = 1;
    auto next = [&] { return seed++ * 7919; };
    std::tuple<std::vector<Stored<S>>...> in{interesting<Stored<S>>(next())...}; // in order: a braced list
    auto d = std::apply([&](auto&... v) { return results<D, S...>(body, v...); }, in);
    int wrong = 0;
    for (uint32_t i = 0; i < THREADS && wrong < 3; i++) {
        D expected = std::apply([&](auto&... v) { return f(S(v[i])...); }, in);
        if (equal_bits<D>(D(d[i]), expected)) continue;
        wrong++;
        std::string operands =
            std::apply([&](auto&... v) { return ((std::to_string(v[i]) + " ") + ...); }, in);
        ADD_FAILURE() << body << " of " << operands << "gives " << +d[i] << ", expected " << +expected;
    }
}

} // namespace vgpu
