// Words of PTX. A word holds its dots and double colons: "ld.global.L2::128B.v4.f32" and "%tid.x" are one.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace vgpu::ptx {

struct Token {
    enum Kind : uint8_t { word, integer, float32, float64, string, punctuation, end } kind;
    std::string_view text;
    int64_t value = 0; // of a number: itself, or the bits of a float
    uint32_t line = 0;
    bool is(std::string_view s) const { return kind != string && text == s; }
};

std::vector<Token> tokens_of(std::string_view text);

} // namespace vgpu::ptx
