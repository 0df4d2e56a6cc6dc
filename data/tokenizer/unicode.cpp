#include "data/tokenizer/unicode.h"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "engine/base/check.h"

namespace nvl {

Char decode_char(const char* text, const char* end) {
    auto byte = [&](int i) { return uint32_t(uint8_t(text[i])); };
    auto follows = [&](int i) { return text + i < end && (byte(i) & 0xC0) == 0x80; };
    uint32_t a = byte(0);
    if (a < 0x80) return {a, 1};
    if (a >= 0xC2 && a < 0xE0 && follows(1)) return {(a & 0x1F) << 6 | (byte(1) & 0x3F), 2};
    if (a >= 0xE0 && a < 0xF0 && follows(1) && follows(2)) {
        uint32_t c = (a & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
        if (c >= 0x800 && (c < 0xD800 || c > 0xDFFF)) return {c, 3};
    }
    if (a >= 0xF0 && a < 0xF5 && follows(1) && follows(2) && follows(3)) {
        uint32_t c = (a & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
        if (c >= 0x10000 && c <= 0x10FFFF) return {c, 4};
    }
    return {0xFFFFFFFF, 1};
}

static std::vector<CharClass> make_class_table() {
    std::vector<CharClass> table(0x110000, CharClass::other);
    for (uint32_t c = 0; c < 0x110000; c++) {
        auto category = utf8proc_category(int32_t(c));
        if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO)
            table[c] = CharClass::letter;
        else if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO)
            table[c] = CharClass::number;
        else if (category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP)
            table[c] = CharClass::space;
    }
    for (uint32_t c : {0x09, 0x0B, 0x0C, 0x85})
        table[c] = CharClass::space; // White_Space, but of category Cc
    table['\r'] = table['\n'] = CharClass::newline;
    return table;
}
const CharClass* class_table() {
    static const std::vector<CharClass> table = make_class_table();
    return table.data();
}

void append_utf8(std::string& text, uint32_t c) {
    if (c < 0x80) {
        text += char(c);
    } else if (c < 0x800) {
        text += char(0xC0 | c >> 6);
        text += char(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        text += char(0xE0 | c >> 12);
        text += char(0x80 | (c >> 6 & 0x3F));
        text += char(0x80 | (c & 0x3F));
    } else {
        text += char(0xF0 | c >> 18);
        text += char(0x80 | (c >> 12 & 0x3F));
        text += char(0x80 | (c >> 6 & 0x3F));
        text += char(0x80 | (c & 0x3F));
    }
}

bool valid_utf8(std::string_view text) {
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        Char c = decode_char(p, end);
        if (c.code == 0xFFFFFFFF) return false;
        p += c.size;
    }
    return true;
}

// Bytes of the longest prefix of some well-formed character that stands at p: Unicode's "maximal subpart"
// (3.9, U+FFFD substitution), at least 1.
static uint32_t ill_formed_size(const char* p, const char* end) {
    auto a = uint8_t(*p);
    int wanted = a >= 0xF0 && a < 0xF5 ? 4 : a >= 0xE0 && a < 0xF0 ? 3 : 1;
    if (wanted == 1 || p + 1 >= end) return 1;
    auto b = uint8_t(p[1]);
    uint8_t low = a == 0xE0   ? 0xA0
                  : a == 0xF0 ? 0x90
                              : 0x80,
            high = a == 0xED   ? 0x9F
                   : a == 0xF4 ? 0x8F
                               : 0xBF;
    if (b < low || b > high) return 1;
    if (wanted == 4 && p + 2 < end && (uint8_t(p[2]) & 0xC0) == 0x80) return 3;
    return 2;
}
std::string replace_invalid_utf8(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        Char c = decode_char(p, end);
        if (c.code == 0xFFFFFFFF) {
            out += "\xEF\xBF\xBD";
            p += ill_formed_size(p, end);
        } else {
            out.append(p, c.size);
            p += c.size;
        }
    }
    return out;
}

namespace {
struct Alphabet {
    std::array<uint16_t, 256> letter;   // byte -> code point
    std::array<int16_t, 0x144> byte;    // code point -> byte or -1
    std::array<uint8_t, 256> by_letter; // bytes in the order of their letters
    Alphabet() {
        byte.fill(-1);
        uint16_t next = 0x100;
        for (int b = 0; b < 256; b++) {
            bool visible = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            letter[size_t(b)] = visible ? uint16_t(b) : next++;
            byte[letter[size_t(b)]] = int16_t(b);
        }
        size_t n = 0;
        for (int16_t b : byte)
            if (b >= 0) by_letter[n++] = uint8_t(b);
    }
};
const Alphabet& alphabet() {
    static const Alphabet a;
    return a;
}
} // namespace

uint32_t byte_to_letter(uint8_t byte) { return alphabet().letter[byte]; }
const uint8_t* bytes_by_letter() { return alphabet().by_letter.data(); }

std::string to_letters(std::string_view bytes) {
    std::string letters;
    for (char b : bytes) append_utf8(letters, byte_to_letter(uint8_t(b)));
    return letters;
}
bool from_letters(std::string_view letters, std::string& bytes) {
    auto& table = alphabet().byte;
    bytes.clear();
    for (const char *p = letters.data(), *end = p + letters.size(); p < end;) {
        Char c = decode_char(p, end);
        if (c.code >= table.size() || table[c.code] < 0) return false;
        bytes += char(table[c.code]);
        p += c.size;
    }
    return true;
}

std::string normalize(std::string_view text, NormalForm form) {
    if (form == NormalForm::none) return std::string(text);
    int options = UTF8PROC_STABLE;
    options |= form == NormalForm::nfc || form == NormalForm::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (form == NormalForm::nfkc || form == NormalForm::nfkd) options |= UTF8PROC_COMPAT;
    std::string out;
    out.reserve(text.size());
    const char *p = text.data(), *end = p + text.size();
    while (p < end) {
        const char* stop = p;
        bool ascii = true;
        Char c{};
        while (stop < end && (c = decode_char(stop, end)).code != 0xFFFFFFFF)
            ascii &= c.size == 1, stop += c.size;
        if (ascii) { // ASCII is its own normal form
            out.append(p, stop);
        } else if (stop > p) {
            utf8proc_uint8_t* result = nullptr;
            auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(p), stop - p, &result,
                                  utf8proc_option_t(options));
            check(n >= 0, "tokenizer: cannot normalise text: %s", utf8proc_errmsg(n));
            out.append(reinterpret_cast<char*>(result), size_t(n));
            std::free(result);
        }
        p = stop;
        if (p < end) out += *p++;
    }
    return out;
}

} // namespace nvl
