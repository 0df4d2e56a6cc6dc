#include "data/tokenizer/wordpiece.h"

#include <utf8proc.h>

#include <algorithm>
#include <cctype>

#include "data/tokenizer/unicode.h"

namespace nvl {

namespace {

bool is_white(uint32_t c) {
    CharClass k = class_table()[c];
    return k == CharClass::space || k == CharClass::newline;
}
// Categories Cc, Cf, Cn, Co and Cs: control, format, unassigned, private, surrogate.
bool is_control(uint32_t c) {
    if (c == '\t' || c == '\n' || c == '\r') return false;
    auto category = utf8proc_category(int32_t(c));
    return category == UTF8PROC_CATEGORY_CN || category >= UTF8PROC_CATEGORY_CC;
}
bool is_punctuation(uint32_t c) {
    if (c < 0x80) return c > ' ' && c < 0x7F && !std::isalnum(int(c));
    auto category = utf8proc_category(int32_t(c));
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}
// The ranges of `tokenizers`, whose extension E begins at 2B920.
bool is_cjk(uint32_t c) {
    constexpr uint32_t RANGES[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                                      {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                                      {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    return std::ranges::any_of(RANGES, [c](auto& r) { return c >= r[0] && c <= r[1]; });
}

// Calls put(code point) for each character; an ill-formed byte is U+FFFD.
template <class F> void each_char(std::string_view text, const F& put) {
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        Char c = decode_char(p, end);
        put(c.code == ~0u ? 0xFFFD : c.code);
        p += c.size;
    }
}

} // namespace

WordPiece::WordPiece(const std::vector<std::string>& vocabulary, const WordPieceOptions& options, int unknown)
    : options_(options), unknown_(unknown) {
    for (size_t i = 0; i < vocabulary.size(); i++) {
        std::string_view piece = vocabulary[i];
        if (piece.empty()) continue;
        starts_.emplace(piece, int(i));
        if (piece.size() > options_.prefix.size() && piece.starts_with(options_.prefix))
            continues_.emplace(piece.substr(options_.prefix.size()), int(i));
    }
}

std::string WordPiece::normalize(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    each_char(text, [&](uint32_t c) {
        if (options_.clean && (c == 0 || c == 0xFFFD || is_control(c))) return;
        if (options_.clean && is_white(c)) c = ' ';
        bool alone = options_.cjk && is_cjk(c);
        if (alone) out += ' ';
        append_utf8(out, c);
        if (alone) out += ' ';
    });
    if (options_.strip_accents) {
        std::string apart = nvl::normalize(out, NormalForm::nfd);
        out.clear();
        each_char(apart, [&](uint32_t c) {
            if (utf8proc_category(int32_t(c)) != UTF8PROC_CATEGORY_MN) append_utf8(out, c);
        });
    }
    if (options_.lowercase) {
        std::string upper = std::move(out);
        out.clear();
        each_char(upper, [&](uint32_t c) {
            append_utf8(out, uint32_t(utf8proc_tolower(int32_t(c))));
            if (c == 0x130) append_utf8(out, 0x307); // the only one that becomes two characters
        });
    }
    return out;
}

void WordPiece::encode_word(std::string_view word, std::vector<int>& ids) const {
    size_t before = ids.size();
    auto characters = std::ranges::count_if(word, [](char c) { return (uint8_t(c) & 0xC0) != 0x80; });
    for (size_t at = 0; at < word.size();) {
        auto& pieces = at ? continues_ : starts_;
        size_t end = characters > options_.longest ? at : word.size();
        auto found = pieces.end();
        for (; end > at; end--)
            if ((found = pieces.find(word.substr(at, end - at))) != pieces.end()) break;
        if (end == at) {
            ids.resize(before);
            ids.push_back(unknown_);
            return;
        }
        ids.push_back(found->second);
        at = end;
    }
}

void WordPiece::encode(std::string_view text, std::vector<int>& ids) const {
    size_t word = 0; // its first byte
    const char *begin = text.data(), *end = begin + text.size();
    auto finish = [&](size_t at) {
        if (at > word) encode_word(text.substr(word, at - word), ids);
    };
    for (const char* p = begin; p < end;) {
        Char c = decode_char(p, end);
        auto at = size_t(p - begin);
        p += c.size;
        bool white = c.code != ~0u && is_white(c.code);
        if (!white && !(c.code != ~0u && is_punctuation(c.code))) continue;
        finish(at);
        word = at;
        if (!white) finish(at + c.size);
        word = at + c.size;
    }
    finish(text.size());
}

size_t WordPiece::safe_cut(std::string_view text, size_t from) {
    return std::min(text.find_first_of(" \n", from), text.size());
}

std::string WordPiece::decoded(const std::string& piece) const {
    if (piece.size() > options_.prefix.size() && piece.starts_with(options_.prefix))
        return piece.substr(options_.prefix.size());
    bool joined = options_.cleanup && (piece == "." || piece == "?" || piece == "!" || piece == ",");
    return joined ? piece : " " + piece;
}

} // namespace nvl
