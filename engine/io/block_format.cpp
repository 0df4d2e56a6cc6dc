#include "engine/io/block_format.h"

#include <algorithm>

#include "engine/base/check.h"

namespace nvl {

// clang-format off
static constexpr BlockFormat FORMATS[] = {
    {BlockType::f32, "F32", 1, 4},        {BlockType::f16, "F16", 1, 2},         {BlockType::bf16, "BF16", 1, 2},
    {BlockType::f64, "F64", 1, 8},        {BlockType::i8, "I8", 1, 1},           {BlockType::i16, "I16", 1, 2},
    {BlockType::i32, "I32", 1, 4},        {BlockType::i64, "I64", 1, 8},
    {BlockType::q4_0, "Q4_0", 32, 18},    {BlockType::q4_1, "Q4_1", 32, 20},     {BlockType::q5_0, "Q5_0", 32, 22},
    {BlockType::q5_1, "Q5_1", 32, 24},    {BlockType::q8_0, "Q8_0", 32, 34},     {BlockType::q8_1, "Q8_1", 32, 36},
    {BlockType::q2_k, "Q2_K", 256, 84},   {BlockType::q3_k, "Q3_K", 256, 110},   {BlockType::q4_k, "Q4_K", 256, 144},
    {BlockType::q5_k, "Q5_K", 256, 176},  {BlockType::q6_k, "Q6_K", 256, 210},   {BlockType::q8_k, "Q8_K", 256, 292},
    {BlockType::iq2_xxs, "IQ2_XXS", 256, 66}, {BlockType::iq2_xs, "IQ2_XS", 256, 74}, {BlockType::iq3_xxs, "IQ3_XXS", 256, 98},
    {BlockType::iq1_s, "IQ1_S", 256, 50}, {BlockType::iq4_nl, "IQ4_NL", 32, 18}, {BlockType::iq3_s, "IQ3_S", 256, 110},
    {BlockType::iq2_s, "IQ2_S", 256, 82}, {BlockType::iq4_xs, "IQ4_XS", 256, 136}, {BlockType::iq1_m, "IQ1_M", 256, 56},
    {BlockType::tq1_0, "TQ1_0", 256, 54}, {BlockType::tq2_0, "TQ2_0", 256, 66},  {BlockType::mxfp4, "MXFP4", 32, 17},
};
// clang-format on

const BlockFormat* find_block_format(uint32_t type) {
    for (auto& f : FORMATS)
        if (uint32_t(f.type) == type) return &f;
    return nullptr;
}
const BlockFormat& block_format(BlockType t) {
    auto* f = find_block_format(uint32_t(t));
    check(f, "unknown block type %u", unsigned(t));
    return *f;
}
BlockType block_type_from(const std::string& name) {
    std::string upper = name, known;
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? char(c - 32) : c; });
    for (auto& f : FORMATS) {
        if (upper == f.name) return f.type;
        known += std::string(known.empty() ? "" : " ") + f.name;
    }
    fail("unknown block type \"%s\"; known are %s", name.c_str(), known.c_str());
}
int64_t block_bytes(BlockType t, int64_t n) {
    auto& f = block_format(t);
    check(n >= 0 && n % f.elements == 0, "%s: %ld elements are not a multiple of its blocks of %ld", f.name,
          n, f.elements);
    return n / f.elements * f.bytes;
}

} // namespace nvl
