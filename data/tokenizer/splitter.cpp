#include "data/tokenizer/splitter.h"

#include <algorithm>

#include "data/tokenizer/unicode.h"
#include "engine/base/check.h"

namespace nvl {

namespace {

using Kind = Splitter::Kind;
using Ends = std::vector<uint32_t>;

const std::string GPT2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// GPT-4's as nanochat writes it; D stands for the digits' repeat count.
const std::string GPT4 =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}D| ?[^\s\p{L}\p{N}]++[\r\n]*)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
// The same language in Llama 3's and Qwen 2's spelling: possessive or not, and [\r\n] once or repeated after
// a greedy \s*, make no difference to what is matched.
const std::string LLAMA3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}D| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string with_digits(std::string pattern, const std::string& repeat) {
    return pattern.replace(pattern.find('D'), 1, repeat);
}

// Characters are looked at one by one through the class table. `end` is the end of the text a pattern sees.
struct Scanner {
    const char* end;
    const CharClass* table = class_table();

    CharClass classify(const char* p, uint32_t& size) const {
        auto b = uint8_t(*p);
        if (b < 0x80) return size = 1, table[b];
        Char c = decode_char(p, end);
        size = c.size;
        return c.code == 0xFFFFFFFF ? CharClass::other : table[c.code];
    }
    CharClass classify(const char* p) const {
        uint32_t size;
        return classify(p, size);
    }
    const char* skip(const char* p, CharClass wanted) const {
        uint32_t size;
        while (p < end && classify(p, size) == wanted) p += size;
        return p;
    }
    static bool white(CharClass c) { return c == CharClass::space || c == CharClass::newline; }

    // \s+(?!\S)|\s+ at a white character: the whole run at the end of the text, else all but its last
    // character, which the next chunk may want as its prefix. `after_newline` receives the end of the run's
    // last [\r\n], or null.
    const char* white_run(const char* p, const char*& after_newline) const {
        const char *begin = p, *last = p;
        after_newline = nullptr;
        uint32_t size;
        for (CharClass c; p < end && white(c = classify(p, size)); p += size) {
            last = p;
            if (c == CharClass::newline) after_newline = p + 1;
        }
        return p == end || last == begin ? p : last;
    }
    // 's 't 'm 'd 're 've 'll after the apostrophe at p: the length of the whole, or 0. Without case, U+017F
    // (long s) is an s too.
    size_t contraction(const char* p, bool any_case) const {
        if (end - p < 2) return 0;
        auto lower = [&](char c) { return any_case && c >= 'A' && c <= 'Z' ? char(c + 32) : c; };
        char a = lower(p[1]), b = end - p > 2 ? lower(p[2]) : '\0';
        if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
        if ((b == 'e' && (a == 'r' || a == 'v')) || (a == 'l' && b == 'l')) return 3;
        if (any_case && a == '\xC5' && b == '\xBF') return 3;
        return 0;
    }

    const char* next_gpt2(const char* p) const {
        uint32_t size;
        CharClass c = classify(p, size);
        if (*p == '\'')
            if (size_t n = contraction(p, false)) return p + n;
        if (*p == ' ' && p + 1 < end) {
            CharClass d = classify(p + 1);
            if (!white(d)) return skip(p + 1, d);
        }
        if (!white(c)) return skip(p + size, c);
        const char* after_newline;
        return white_run(p, after_newline);
    }
    const char* next_gpt4(const char* p, int digits) const {
        uint32_t size;
        CharClass c = classify(p, size);
        if (c == CharClass::letter) return skip(p + size, c);
        if (*p == '\'')
            if (size_t n = contraction(p, true)) return p + n;
        if (c == CharClass::number) {
            do p += size;
            while (--digits && p < end && classify(p, size) == c);
            return p;
        }
        CharClass d = p + size < end ? classify(p + size) : CharClass::newline;
        if (c != CharClass::newline && d == CharClass::letter) return skip(p + size, d);
        if (c == CharClass::other) return skip(skip(p + size, c), CharClass::newline);
        if (*p == ' ' && d == CharClass::other) return skip(skip(p + 1, d), CharClass::newline);
        const char *after_newline, *stop = white_run(p, after_newline);
        return after_newline ? after_newline : stop;
    }
    const char* next_digits(const char* p, bool runs) const {
        uint32_t size;
        if (classify(p, size) == CharClass::number) return runs ? skip(p, CharClass::number) : p + size;
        while (p < end && classify(p, size) != CharClass::number) p += size;
        return p;
    }
};

template <class Next> void scan(std::string_view text, size_t begin, size_t end, Ends& ends, Next next) {
    Scanner scanner{text.data() + end};
    for (const char* p = text.data() + begin; p < scanner.end;) {
        p = next(scanner, p);
        ends.push_back(uint32_t(p - text.data()));
    }
}

// Matches and the gaps between them are chunks ("Isolated"); an empty match is none.
void scan_regex(const Regex& regex, std::string_view text, size_t begin, size_t end, Ends& ends) {
    std::string_view piece = text.substr(begin, end - begin);
    size_t done = 0, from = 0, a, b;
    while (from < piece.size() && regex.find(piece, from, a, b)) {
        if (a == b) { // go on behind the character that stands here
            from =
                b >= piece.size() ? b : b + decode_char(piece.data() + b, piece.data() + piece.size()).size;
            continue;
        }
        if (a > done) ends.push_back(uint32_t(begin + a));
        ends.push_back(uint32_t(begin + b));
        done = from = b;
    }
    if (done < piece.size()) ends.push_back(uint32_t(end));
}

void run_stage(const Splitter::Stage& stage, std::string_view text, size_t begin, size_t end, Ends& ends) {
    switch (stage.kind) {
    case Kind::gpt2: return scan(text, begin, end, ends, [](auto& s, auto* p) { return s.next_gpt2(p); });
    case Kind::gpt4_1:
        return scan(text, begin, end, ends, [](auto& s, auto* p) { return s.next_gpt4(p, 1); });
    case Kind::gpt4_2:
        return scan(text, begin, end, ends, [](auto& s, auto* p) { return s.next_gpt4(p, 2); });
    case Kind::gpt4_3:
        return scan(text, begin, end, ends, [](auto& s, auto* p) { return s.next_gpt4(p, 3); });
    case Kind::digits:
        return scan(text, begin, end, ends, [](auto& s, auto* p) { return s.next_digits(p, false); });
    case Kind::digit_runs:
        return scan(text, begin, end, ends, [](auto& s, auto* p) { return s.next_digits(p, true); });
    case Kind::regex: return scan_regex(*stage.regex, text, begin, end, ends);
    }
}

} // namespace

Splitter Splitter::named(const std::string& name) {
    Splitter s;
    if (name == "gpt4-1")
        s.add(Kind::gpt4_1);
    else if (name == "gpt4-2")
        s.add(Kind::gpt4_2);
    else if (name == "gpt4-3")
        s.add(Kind::gpt4_3);
    else if (name == "gpt2")
        s.add(Kind::gpt2);
    else if (name == "smollm")
        s.add(Kind::digits), s.add(Kind::gpt2);
    else
        fail("tokenizer: expected the pattern gpt4-2, gpt4-1, gpt4-3, gpt2 or smollm, found '%s'",
             name.c_str());
    return s;
}

void Splitter::add_regex(const std::string& pattern) {
    stages_.push_back({Kind::regex, std::make_shared<const Regex>(pattern)});
}
void Splitter::add_pattern(const std::string& pattern) {
    if (pattern == GPT2) return add(Kind::gpt2);
    if (pattern == "\\p{N}" || pattern == "\\p{N}{1}") return add(Kind::digits);
    if (pattern == "\\p{N}+") return add(Kind::digit_runs);
    for (const std::string& family : {GPT4, LLAMA3})
        for (auto& [repeat, kind] : {std::pair<const char*, Kind>{"", Kind::gpt4_1},
                                     {"{1}", Kind::gpt4_1},
                                     {"{1,2}", Kind::gpt4_2},
                                     {"{1,3}", Kind::gpt4_3}})
            if (pattern == with_digits(family, repeat)) return add(kind);
    add_regex(pattern);
}

std::string Splitter::pattern_of(const Stage& stage) {
    switch (stage.kind) {
    case Kind::gpt2: return GPT2;
    case Kind::gpt4_1: return with_digits(LLAMA3, "");
    case Kind::gpt4_2: return with_digits(LLAMA3, "{1,2}");
    case Kind::gpt4_3: return with_digits(LLAMA3, "{1,3}");
    case Kind::digits: return "\\p{N}";
    case Kind::digit_runs: return "\\p{N}+";
    case Kind::regex: break;
    }
    return stage.regex->pattern();
}
bool Splitter::operator==(const Splitter& o) const {
    return std::ranges::equal(stages_, o.stages_, [](auto& a, auto& b) {
        return a.kind == b.kind && (a.kind != Kind::regex || a.regex->pattern() == b.regex->pattern());
    });
}

void Splitter::split(std::string_view text, Ends& ends) const {
    if (text.empty()) return;
    check(text.size() < UINT32_MAX, "tokenizer: expected a text of less than 4 GiB, found %zu bytes",
          text.size());
    if (stages_.empty()) return ends.push_back(uint32_t(text.size()));
    if (stages_.size() == 1) return run_stage(stages_[0], text, 0, text.size(), ends);
    Ends now{uint32_t(text.size())}, next;
    for (auto& stage : stages_) {
        next.clear();
        size_t begin = 0;
        for (uint32_t end : now) run_stage(stage, text, begin, end, next), begin = end;
        now.swap(next);
    }
    ends.insert(ends.end(), now.begin(), now.end());
}

size_t Splitter::safe_cut(std::string_view text, size_t from) const {
    bool known = false;
    for (auto& stage : stages_) {
        if (stage.kind == Kind::regex) return text.size();
        known |= stage.kind != Kind::digits && stage.kind != Kind::digit_runs;
    }
    if (!known) return text.size();
    for (size_t i = std::max<size_t>(from, 1); i < text.size(); i++) {
        char a = char(text[i - 1] | 32);
        if ((text[i] == ' ' || text[i] == '\n') && a >= 'a' && a <= 'z') return i;
    }
    return text.size();
}

} // namespace nvl
