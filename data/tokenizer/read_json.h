// Reading tokenizer.json: values that know where they stand, and the stages around the model.
#pragma once
#include <nlohmann/json.hpp>

#include "data/tokenizer/tokenizer.h"
#include "engine/base/check.h"

namespace nvl {

constexpr size_t MAX_IDS = 1 << 24;

/// A value and the path to it ("model.vocab"), so that every mistake has an address.
struct JsonNode {
    const nlohmann::json* value;
    std::string where;

    [[noreturn]] void expected(const char* what) const {
        fail("%s: expected %s, found %s", where.c_str(), what, value ? value->type_name() : "nothing");
    }
    JsonNode operator[](const char* key) const {
        if (!value || !value->is_object()) expected("an object");
        auto at = value->find(key);
        return {at == value->end() ? nullptr : &*at, where + (where.ends_with(": ") ? "" : ".") + key};
    }
    JsonNode at(size_t i) const { return {&(*value)[i], where + "[" + std::to_string(i) + "]"}; }
    bool null() const { return !value || value->is_null(); }
    const std::string& string() const {
        if (!value || !value->is_string()) expected("a string");
        return value->get_ref<const std::string&>();
    }
    std::string string_or(const char* other) const { return null() ? other : string(); }
    bool boolean_or(bool other) const {
        if (null()) return other;
        if (!value->is_boolean()) expected("true or false");
        return value->get<bool>();
    }
    int id() const {
        if (!value || !value->is_number_integer()) expected("an id");
        // a literal above 2^63 is unsigned in the parser
        bool fits = value->is_number_unsigned()
                        ? value->get<uint64_t>() < MAX_IDS
                        : value->get<int64_t>() >= 0 && value->get<int64_t>() < int64_t(MAX_IDS);
        if (!fits) expected("an id from 0 to 16777215");
        return value->get<int>();
    }
    const nlohmann::json& array() const {
        if (!value || !value->is_array()) expected("a list");
        return *value;
    }
    const nlohmann::json& object() const {
        if (!value || !value->is_object()) expected("an object");
        return *value;
    }
};

/// normalizer, pre_tokenizer, decoder and post_processor; the model has been read.
void read_stages(JsonNode root, TokenizerParts& parts);

} // namespace nvl
