#include "data/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>

#include "engine/base/check.h"

namespace nvl {

// PCRE2's \s adds U+180E (removed from White_Space in Unicode 6.3), so \s and \S are spelled as the property.
static std::string translate(const std::string& pattern) {
    std::string out;
    for (size_t i = 0; i < pattern.size(); i++) {
        if (pattern[i] != '\\' || i + 1 == pattern.size()) {
            out += pattern[i];
            continue;
        }
        char c = pattern[++i];
        if (c == 's')
            out += "\\p{White_Space}";
        else if (c == 'S')
            out += "\\P{White_Space}";
        else
            out += '\\', out += c;
    }
    return out;
}

static std::string message_of(int code) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(code, text, sizeof text);
    return reinterpret_cast<char*>(text);
}

Regex::Regex(const std::string& pattern) : pattern_(pattern) {
    std::string translated = translate(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    auto* context = pcre2_compile_context_create(nullptr);
    pcre2_set_parens_nest_limit(context, 64);
    auto* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                               PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C,
                               &error, &offset, context);
    pcre2_compile_context_free(context);
    check(code, "tokenizer: cannot compile the split pattern '%s': %s", pattern.substr(0, 200).c_str(),
          message_of(error).c_str());
    auto* limits = pcre2_match_context_create(nullptr);
    pcre2_set_match_limit(limits, 20'000'000);
    pcre2_set_heap_limit(limits, 256 * 1024); // KiB
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    code_ = code, limits_ = limits;
}
Regex::~Regex() {
    pcre2_match_context_free(static_cast<pcre2_match_context*>(limits_));
    pcre2_code_free(static_cast<pcre2_code*>(code_));
}

bool Regex::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
    auto* code = static_cast<pcre2_code*>(code_);
    struct Free {
        void operator()(pcre2_match_data* d) const { pcre2_match_data_free(d); }
    };
    thread_local std::unique_ptr<pcre2_match_data, Free> data(pcre2_match_data_create(1, nullptr));
    auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data() ? text.data() : "");
    auto match = [&](uint32_t options) {
        return pcre2_match(code, subject, text.size(), from, options, data.get(),
                           static_cast<pcre2_match_context*>(limits_));
    };
    int n = match(0);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = match(PCRE2_NO_JIT); // its own stack is on the heap, with a limit
    if (n == PCRE2_ERROR_NOMATCH) return false;
    check(n >= 0, "tokenizer: the split pattern '%s' failed on a text of %zu bytes: %s",
          pattern_.substr(0, 200).c_str(), text.size(), message_of(n).c_str());
    auto* bounds = pcre2_get_ovector_pointer(data.get());
    begin = bounds[0], end = bounds[1];
    check(begin <= end, "tokenizer: the split pattern '%s' uses \\K in a lookaround, which is not supported",
          pattern_.substr(0, 200).c_str());
    return true;
}

std::string regex_quote(std::string_view text) {
    std::string out;
    for (char c : text) {
        if (std::string_view("\\^$.|?*+()[]{}#-/&~").find(c) != std::string_view::npos) out += '\\';
        out += c;
    }
    return out;
}

} // namespace nvl
