// What splitting text needs to know about Unicode: strict UTF-8, five character classes, GPT-2's printable
// alphabet for bytes, and normal forms.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace nvl {

/// The classes that the split patterns tell apart: \p{L}, \p{N}, [\r\n], the rest of \s (White_Space),
/// everything else.
enum class CharClass : uint8_t { other, letter, number, space, newline };

/// One character at text[at]; an ill-formed byte is a character of its own, of class `other`.
struct Char {
    uint32_t code; // 0xFFFFFFFF for an ill-formed byte
    uint32_t size; // bytes
};
Char decode_char(const char* text, const char* end);

/// Class of every code point, one byte each (1.1 MB, filled from utf8proc's categories on first use).
const CharClass* class_table();

/// Appends code point `c` as UTF-8.
void append_utf8(std::string& text, uint32_t c);

/// Well-formed UTF-8 throughout?
bool valid_utf8(std::string_view text);
/// Each maximal ill-formed sequence becomes U+FFFD: what a terminal or a JSON reader may be shown.
std::string replace_invalid_utf8(std::string_view text);

/// Byte-level vocabularies are written in printable characters: a byte that is a visible Latin-1 character
/// stands for itself, the other 68 are U+0100, U+0101, ... in order (GPT-2's table).
uint32_t byte_to_letter(uint8_t byte);
std::string to_letters(std::string_view bytes);
/// The inverse; false if some character is outside the alphabet.
bool from_letters(std::string_view letters, std::string& bytes);
/// Bytes in the order of their letters, '!' first: ids 0 to 255 of a trained vocabulary, as in GPT-2's.
const uint8_t* bytes_by_letter();

enum class NormalForm { none, nfc, nfd, nfkc, nfkd };
/// Normalises the well-formed stretches of `text`; ill-formed bytes stay as they are.
std::string normalize(std::string_view text, NormalForm form);

} // namespace nvl
