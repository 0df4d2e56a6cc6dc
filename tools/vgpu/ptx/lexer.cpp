#include "tools/vgpu/ptx/lexer.h"

#include <bit>
#include <cctype>
#include <cstdlib>
#include <string>

#include "tools/vgpu/ptx/ast.h"

namespace vgpu::ptx {
namespace {

bool starts_word(char c) { return std::isalpha(uint8_t(c)) || c == '_' || c == '$' || c == '%' || c == '.'; }
bool in_word(char c) { return std::isalnum(uint8_t(c)) || c == '_' || c == '$' || c == '.' || c == '%'; }

struct Lexer {
    std::string_view text;
    size_t at = 0;
    uint32_t line = 1;
    std::vector<Token> out;

    char peek(size_t ahead = 0) const { return at + ahead < text.size() ? text[at + ahead] : '\0'; }
    void push(Token::Kind kind, size_t begin, int64_t value = 0) {
        out.push_back({kind, text.substr(begin, at - begin), value, line});
    }

    void skip_comment() {
        if (peek(1) == '/') {
            while (at < text.size() && peek() != '\n') at++;
            return;
        }
        for (at += 2; at < text.size() && !(peek() == '*' && peek(1) == '/'); at++) line += peek() == '\n';
        at += 2;
    }

    void word() {
        bool directive = peek() == '.'; // ".reg.b32" is two words
        size_t begin = at++;
        while ((in_word(peek()) && !(directive && peek() == '.')) ||
               (peek() == ':' && peek(1) == ':' && in_word(peek(2)))) {
            at += peek() == ':' ? 2 : 1;
        }
        push(Token::word, begin);
    }

    void number() {
        size_t begin = at;
        if (peek() == '0' && std::string_view("fFdD").find(peek(1)) != std::string_view::npos && peek(1)) {
            bool wide = peek(1) == 'd' || peek(1) == 'D';
            for (at += 2; std::isxdigit(uint8_t(peek()));) at++;
            std::string digits(text.substr(begin + 2, at - begin - 2));
            push(wide ? Token::float64 : Token::float32, begin,
                 int64_t(std::strtoull(digits.c_str(), nullptr, 16)));
            return;
        }
        bool hex = peek() == '0' && (peek(1) == 'x' || peek(1) == 'X');
        bool binary = peek() == '0' && (peek(1) == 'b' || peek(1) == 'B');
        if (hex || binary) at += 2;
        while (std::isxdigit(uint8_t(peek()))) at++;
        if (!hex && peek() == '.' && std::isdigit(uint8_t(peek(1)))) {
            at++;
            while (std::isdigit(uint8_t(peek()))) at++;
            push(Token::float64, begin,
                 std::bit_cast<int64_t>(std::atof(std::string(text.substr(begin, at - begin)).c_str())));
            return;
        }
        std::string digits(text.substr(begin, at - begin));
        uint64_t value = binary ? std::strtoull(digits.c_str() + 2, nullptr, 2)
                                : std::strtoull(digits.c_str(), nullptr, 0);
        if (peek() == 'U') at++;
        push(Token::integer, begin, int64_t(value));
    }

    void run() {
        while (at < text.size()) {
            char c = peek();
            if (c == '\n')
                line++, at++;
            else if (std::isspace(uint8_t(c)) || c == '\0')
                at++;
            else if (c == '/' && (peek(1) == '/' || peek(1) == '*'))
                skip_comment();
            else if (starts_word(c))
                word();
            else if (std::isdigit(uint8_t(c)))
                number();
            else if (c == '"') {
                size_t begin = at++;
                while (at < text.size() && peek() != '"') at += peek() == '\\' ? 2 : 1;
                at++;
                push(Token::string, begin);
            } else {
                size_t begin = at++;
                push(Token::punctuation, begin);
            }
        }
        out.push_back({Token::end, {}, 0, line});
    }
};

} // namespace

std::vector<Token> tokens_of(std::string_view text) {
    Lexer lexer{text};
    lexer.run();
    return std::move(lexer.out);
}

} // namespace vgpu::ptx
