#include "kernels/position/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/base/check.h"

namespace nvl {

RopeType rope_type_named(const std::string& name) {
    using enum RopeType;
    static const std::pair<const char*, RopeType> known[] = {
        {"default", standard},  {"mrope", standard},
        {"original", standard}, {"linear", linear},
        {"dynamic", dynamic},   {"llama3", llama3},
        {"yarn", yarn},         {"longrope", longrope},
        {"su", longrope},       {"proportional", proportional}};
    std::string names;
    for (auto& [n, type] : known) {
        if (name == n) return type;
        names += std::string(names.empty() ? "" : ", ") + n;
    }
    fail("rope type \"%s\" is unknown; expected one of %s", name.c_str(), names.c_str());
}

int RopeTable::streams() const {
    return 1 + *std::max_element(stream.begin(), stream.begin() + std::max<int64_t>(1, pairs));
}

namespace {

// theta^(-2i / d) / stretch in the f32 steps that the checkpoints' own programs take.
float plain_frequency(double theta, int64_t i, int64_t d, double stretch = 1) {
    float exponent = float(2 * i) / float(d);
    return 1.0f / (float(stretch) * float(std::pow(double(float(theta)), double(exponent))));
}

float llama3_frequency(float inv, const RopeConfig& c, double M0) {
    double wave = 2 * std::numbers::pi / double(inv);
    if (wave < M0 / c.high_freq) return inv;
    if (wave > M0 / c.low_freq) return float(double(inv) / c.factor);
    double t = (M0 / wave - c.low_freq) / (c.high_freq - c.low_freq);
    return float((1 - t) * double(inv) / c.factor + t * double(inv));
}

struct Ramp {
    double low, high;
    double at(int64_t i) const { return std::clamp((double(i) - low) / (high - low), 0.0, 1.0); }
};
// From the dimension that turns beta_fast times in M0 tokens to the one that turns beta_slow times.
Ramp yarn_ramp(const RopeConfig& c, int64_t d, double M0) {
    auto dimension = [&](double turns) {
        return double(d) * std::log(M0 / (turns * 2 * std::numbers::pi)) / (2 * std::log(c.theta));
    };
    double low = dimension(c.beta_fast), high = dimension(c.beta_slow);
    if (c.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0), high = std::min(high, double(d - 1));
    if (low == high) high += 0.001;
    return {low, high};
}

double mscale(double factor, double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; }

double attention_scale(const RopeConfig& c, double M0) {
    if (c.type != RopeType::yarn && c.type != RopeType::longrope) return 1;
    if (c.attention_factor) return *c.attention_factor;
    if (c.type == RopeType::longrope)
        return c.factor <= 1 ? 1 : std::sqrt(1 + std::log(c.factor) / std::log(M0));
    if (c.mscale.value_or(0) != 0 && c.mscale_all_dim.value_or(0) != 0)
        return mscale(c.factor, *c.mscale) / mscale(c.factor, *c.mscale_all_dim);
    return mscale(c.factor, 1);
}

void check_config(const RopeConfig& c, int64_t pairs) {
    check(c.theta > 0 && c.factor > 0 && c.head_dim > 0,
          "rope: theta %g, factor %g, head_dim %ld; expected > 0", c.theta, c.factor, long(c.head_dim));
    check(pairs > 0 && 2 * pairs <= c.head_dim && pairs <= RopeTable::MAX_PAIRS,
          "rope: %g of head_dim %ld gives %ld pairs; expected 1..%ld", c.partial, long(c.head_dim),
          long(pairs), long(RopeTable::MAX_PAIRS));
    bool stretched = c.type == RopeType::llama3 || c.type == RopeType::yarn || c.type == RopeType::longrope;
    check(!stretched || c.original_max > 0 || c.max_position > 0,
          "rope: this type needs the original context length (original_max_position_embeddings)");
    check(c.type != RopeType::dynamic || (c.max_position > 0 && pairs > 1),
          "rope: dynamic scaling needs max_position_embeddings and more than one pair");
    if (c.type == RopeType::longrope)
        for (auto& list : {c.short_factor, c.long_factor})
            check(int64_t(list.size()) == pairs, "rope: longrope has %zu factors for %ld pairs", list.size(),
                  long(pairs));
    int64_t sum = 0;
    for (int64_t s : c.sections) sum += s;
    check(c.sections.empty() || sum == pairs, "rope: sections add up to %ld, expected %ld pairs", long(sum),
          long(pairs));
}

// Chunks: the first sections[0] frequencies follow stream 0, the next stream 1, ... Interleaved: t h w t h w
// ... as long as h and w last, the rest follows t.
void assign_streams(RopeTable& table, const RopeConfig& c) {
    int64_t n = int64_t(c.sections.size()), i = 0;
    if (!c.interleaved_sections) {
        for (int64_t s = 0; s < n; s++)
            for (int64_t k = 0; k < c.sections[size_t(s)]; k++) table.stream[size_t(i++)] = uint8_t(s);
        return;
    }
    for (; i < table.pairs; i++)
        if (n && i < n * c.sections[size_t(i % n)]) table.stream[size_t(i)] = uint8_t(i % n);
}

} // namespace

RopeTable rope_table(const RopeConfig& c) {
    bool proportional = c.type == RopeType::proportional;
    int64_t d = proportional ? c.head_dim : int64_t(double(c.head_dim) * c.partial);
    RopeTable table{.pairs = d / 2};
    check_config(c, table.pairs);
    double M = double(c.max_position), M0 = double(c.original_max ? c.original_max : c.max_position);
    double theta = c.theta, S = std::max(double(c.seq_len), M), dd = double(d);
    if (c.type == RopeType::dynamic) theta *= std::pow(c.factor * S / M - (c.factor - 1), dd / (dd - 2));
    bool is_long = double(c.seq_len) > M0;
    Ramp ramp = c.type == RopeType::yarn ? yarn_ramp(c, d, M0) : Ramp{0, 1};
    int64_t turning = proportional ? int64_t(c.partial * double(c.head_dim)) / 2 : table.pairs;
    for (int64_t i = 0; i < turning; i++) {
        float inv = plain_frequency(theta, i, d);
        size_t k = size_t(i);
        switch (c.type) {
        case RopeType::linear:
        case RopeType::proportional: inv = float(double(inv) / c.factor); break;
        case RopeType::llama3: inv = llama3_frequency(inv, c, M0); break;
        case RopeType::yarn:
            inv = float(double(inv) / c.factor * ramp.at(i) + double(inv) * (1 - ramp.at(i)));
            break;
        case RopeType::longrope:
            inv = plain_frequency(theta, i, d, (is_long ? c.long_factor : c.short_factor)[k]);
            break;
        case RopeType::standard:
        case RopeType::dynamic: break;
        }
        table.inv_freq[k] = inv;
    }
    table.scale = float(attention_scale(c, M0));
    assign_streams(table, c);
    return table;
}

} // namespace nvl
