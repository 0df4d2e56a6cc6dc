// The frequencies of rotary position embedding and every way of stretching them to longer contexts.
//
//   inv[i] = theta^(-2i / d),  i < d / 2,  d = partial * head_dim        Su et al. 2021, arXiv:2104.09864
//
//   linear        inv / f                                               Chen et al. 2023, arXiv:2306.15595
//   dynamic       theta * (f S / M - (f - 1))^(d / (d - 2)), S = max(sequence, M)      (NTK-aware)
//   llama3        wavelength w = 2 pi / inv; w < M0 / high: kept; w > M0 / low: inv / f; between: blended
//   yarn          inv / f where a dimension turns less than beta_slow times in M0 tokens, kept where it turns
//                 more than beta_fast times, a ramp between               Peng et al. 2023, arXiv:2309.00071
//   longrope      inv / short[i], or inv / long[i] beyond M0 tokens       Ding et al. 2024, arXiv:2402.13753
//   proportional  the first partial * d / 2 frequencies over the whole head, the rest 0 (no rotation)
//
// cos and sin are multiplied by `scale` (yarn, longrope). Frequencies are computed as the field's checkpoints
// were trained with them: the power in f32 steps, so they agree with transformers within two units in the
// last place.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nvl {

enum class RopeType : uint8_t { standard, linear, dynamic, llama3, yarn, longrope, proportional };
/// By the name in a checkpoint's configuration: "default", "linear", "llama3", ...
RopeType rope_type_named(const std::string& name);

struct RopeConfig {
    RopeType type = RopeType::standard;
    double theta = 10000;
    int64_t head_dim = 0;
    double partial = 1;                 // share of the head that is rotated
    double factor = 1;                  // f
    int64_t max_position = 0;           // M
    int64_t original_max = 0;           // M0, the context before stretching; 0: M
    int64_t seq_len = 0;                // longest sequence in use (dynamic, longrope); 0: not beyond M or M0
    double low_freq = 1, high_freq = 4; // llama3
    double beta_fast = 32, beta_slow = 1; // yarn
    std::optional<double> mscale, mscale_all_dim, attention_factor;
    bool truncate = true; // yarn: the ramp's ends are rounded outwards to whole dimensions
    std::vector<double> short_factor, long_factor;
    std::vector<int64_t> sections;     // frequencies per position stream (text, height, width); empty: one
    bool interleaved_sections = false; // streams take turns instead of chunks
};

/// A plain value, small enough to travel as a kernel parameter.
struct RopeTable {
    static constexpr int64_t MAX_PAIRS = 256;
    int64_t pairs = 0; // the first 2 * pairs elements of a head are rotated
    float scale = 1;
    std::array<float, MAX_PAIRS> inv_freq{};
    std::array<uint8_t, MAX_PAIRS> stream{}; // which position a frequency follows
    int streams() const;
};

RopeTable rope_table(const RopeConfig&);

} // namespace nvl
