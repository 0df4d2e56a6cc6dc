#include "models/blocks/config.h"

namespace nvl {

const Json* ConfigReader::find(const char* key) const {
    auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
}
bool ConfigReader::has(const char* key) const { return find(key); }

static std::string shown(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int64_t ConfigReader::integer(const char* key) const {
    const Json* v = find(key);
    check(v, "config.json: \"%s\" is missing; expected an integer", key);
    check(v->is_number_integer(), "config.json: \"%s\" expects an integer, found %s", key, shown(*v).c_str());
    return v->get<int64_t>();
}
int64_t ConfigReader::integer(const char* key, int64_t fallback) const {
    return find(key) ? integer(key) : fallback;
}
double ConfigReader::number(const char* key, double fallback) const {
    const Json* v = find(key);
    if (!v) return fallback;
    check(v->is_number() && std::isfinite(v->get<double>()), "config.json: \"%s\" expects a number, found %s",
          key, shown(*v).c_str());
    return v->get<double>();
}
bool ConfigReader::boolean(const char* key, bool fallback) const {
    const Json* v = find(key);
    if (!v) return fallback;
    check(v->is_boolean(), "config.json: \"%s\" expects true or false, found %s", key, shown(*v).c_str());
    return v->get<bool>();
}
std::string ConfigReader::text(const char* key, const std::string& fallback) const {
    const Json* v = find(key);
    if (!v) return fallback;
    check(v->is_string(), "config.json: \"%s\" expects a string, found %s", key, shown(*v).c_str());
    return v->get<std::string>();
}
int64_t ConfigReader::size(const char* key, int64_t most) const {
    int64_t n = integer(key);
    check(n >= 1 && n <= most, "config.json: \"%s\" expects 1 to %ld, found %ld", key, most, n);
    return n;
}

std::vector<int64_t> read_windows(const ConfigReader& c, int64_t layers, int64_t full_every) {
    std::vector<int64_t> window(size_t(layers), 0);
    if (!c.has("sliding_window") || !c.boolean("use_sliding_window", true)) return window;
    int64_t w = c.size("sliding_window");
    if (c.has("layer_types")) {
        const Json& types = c.json()["layer_types"];
        check(types.is_array() && int64_t(types.size()) == layers,
              "config.json: \"layer_types\" expects %ld entries", layers);
        for (size_t l = 0; l < types.size(); l++) {
            check(types[l] == "full_attention" || types[l] == "sliding_attention",
                  "config.json: \"layer_types\" expects full_attention or sliding_attention, found %s",
                  shown(types[l]).c_str());
            window[l] = types[l] == "sliding_attention" ? w : 0;
        }
    } else if (full_every) {
        for (int64_t l = 0; l < layers; l++) window[size_t(l)] = (l + 1) % full_every ? w : 0;
    } else
        for (int64_t l = c.integer("max_window_layers", 0); l < layers; l++) window[size_t(l)] = w;
    return window;
}

} // namespace nvl
