// Cuts text into the chunks that byte-pair merges never cross. The patterns in use are hand-written scanners
// (some 30 times faster than a regular expression engine); any other pattern of a tokenizer.json runs on
// PCRE2.
//
//   gpt4-2   GPT-4's pattern with \p{N}{1,2}: ours, and the default for training
//   gpt4-3   the same with \p{N}{1,3}: cl100k, Llama 3 ("llama-bpe")
//   gpt4-1   the same with \p{N}: Qwen 2 ("qwen2")
//   gpt2     GPT-2's
//   digits   every \p{N} alone;  digit-runs  every run of \p{N} alone
//
// A splitter is a list of stages: each cuts the chunks of the one before ("smollm" = digits, then gpt2).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/regex.h"

namespace nvl {

class Splitter {
public:
    enum class Kind { gpt4_1, gpt4_2, gpt4_3, gpt2, digits, digit_runs, regex };
    struct Stage {
        Kind kind;
        std::shared_ptr<const Regex> regex; // of Kind::regex
    };

    Splitter() = default; // no stage: text is one chunk
    /// One of gpt4-1, gpt4-2, gpt4-3, gpt2, smollm.
    static Splitter named(const std::string& name);
    void add(Kind kind) { stages_.push_back({kind, nullptr}); }
    /// The hand-written scanner if the pattern is a known one, else PCRE2.
    void add_pattern(const std::string& pattern);
    void add_regex(const std::string& pattern); // always PCRE2

    const std::vector<Stage>& stages() const { return stages_; }
    bool operator==(const Splitter& o) const;
    /// The pattern of a stage, as a tokenizer.json has it.
    static std::string pattern_of(const Stage& stage);

    /// Appends the end of every chunk of `text` (at most 4 GiB), in order; no chunk is empty.
    void split(std::string_view text, std::vector<uint32_t>& ends) const;

    /// A place at or after `from` where text may be cut without changing any chunk, or the end of the text:
    /// between an ASCII letter and a space or newline, as no known pattern lets a chunk go on there or looks
    /// past it.
    size_t safe_cut(std::string_view text, size_t from) const;

private:
    std::vector<Stage> stages_;
};

} // namespace nvl
