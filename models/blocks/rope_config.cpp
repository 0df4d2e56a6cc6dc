// Rotary settings as the two styles of config.json spell them.
#include "models/blocks/decoder.h"

namespace nvl {

static std::vector<double> numbers(const Json& settings, const char* key) {
    std::vector<double> values;
    if (!settings.contains(key)) return values;
    check(settings[key].is_array(), "config.json: \"%s\" expects a list of numbers", key);
    for (const Json& v : settings[key]) {
        check(v.is_number(), "config.json: \"%s\" expects a list of numbers", key);
        values.push_back(v.get<double>());
    }
    return values;
}

RopeConfig read_rope(const ConfigReader& c, int64_t head_dim, const char* layer_type) {
    bool modern = c.has("rope_parameters");
    const char* name = modern ? "rope_parameters" : "rope_scaling";
    Json settings = c.has(name) ? c.json()[name] : Json::object();
    check(settings.is_object(), "config.json: \"%s\" expects an object", name);
    if (layer_type && settings.contains(layer_type)) {
        settings = Json(settings[layer_type]);
        check(settings.is_object(), "config.json: \"%s\" of \"%s\" expects an object", layer_type, name);
    }
    ConfigReader s(settings);
    auto optional = [&](const char* key) {
        return s.has(key) ? std::optional(s.number(key, 0)) : std::nullopt;
    };
    RopeConfig r;
    r.type = rope_type_named(s.text("rope_type", s.text("type", "default")));
    r.theta = s.number("rope_theta", c.number("rope_theta", 1e4));
    r.head_dim = head_dim;
    r.partial = s.number("partial_rotary_factor", c.number("partial_rotary_factor", 1));
    r.factor = s.number("factor", 1);
    r.max_position = c.integer("max_position_embeddings", 2048);
    r.original_max =
        s.integer("original_max_position_embeddings", c.integer("original_max_position_embeddings", 0));
    r.low_freq = s.number("low_freq_factor", r.low_freq),
    r.high_freq = s.number("high_freq_factor", r.high_freq);
    r.beta_fast = s.number("beta_fast", r.beta_fast), r.beta_slow = s.number("beta_slow", r.beta_slow);
    r.mscale = optional("mscale"), r.mscale_all_dim = optional("mscale_all_dim");
    r.attention_factor = optional("attention_factor");
    r.truncate = s.boolean("truncate", true);
    r.short_factor = numbers(settings, "short_factor"), r.long_factor = numbers(settings, "long_factor");
    return r;
}

} // namespace nvl
