// PCRE2 behind one small class: the generic path for split patterns that have no hand-written splitter, and
// the oracle that those are tested against.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace nvl {

/// A compiled pattern with the meaning it has in Hugging Face tokenizers (Oniguruma): Unicode classes, \s is
/// White_Space.
class Regex {
public:
    explicit Regex(const std::string& pattern);
    ~Regex();
    Regex(const Regex&) = delete;

    /// First match at or after byte `from`: false if there is none. Runs in bounded time and memory: a
    /// pattern that backtracks without end is an error.
    bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const;
    const std::string& pattern() const { return pattern_; }

private:
    std::string pattern_;
    void* code_ = nullptr;
    void* limits_ = nullptr;
};

/// `text` with every character that means something in a pattern escaped.
std::string regex_quote(std::string_view text);

} // namespace nvl
