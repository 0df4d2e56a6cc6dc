#include "data/chat/calculator.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/base/check.h"

namespace nvl {
namespace {
constexpr size_t LONGEST = 256, DEEPEST = 64;

struct Value {
    bool whole = true;
    int64_t i = 0;
    double d = 0; // equal to i when whole
};
Value of(int64_t i) { return {true, i, double(i)}; }
std::optional<Value> of(double d) {
    if (!std::isfinite(d)) return {};
    return Value{false, 0, d};
}

std::optional<Value> apply(char op, const Value& a, const Value& b) {
    if (op == '/') {
        if (b.d == 0) return {};
        if (a.whole && b.whole) {
            if (b.i == -1) return apply('-', of(int64_t(0)), a); // INT64_MIN / -1 does not fit
            if (a.i % b.i == 0) return of(a.i / b.i);
        }
        return of(a.d / b.d);
    }
    if (a.whole && b.whole) {
        int64_t r = 0;
        bool overflow = op == '+'   ? __builtin_add_overflow(a.i, b.i, &r)
                        : op == '-' ? __builtin_sub_overflow(a.i, b.i, &r)
                                    : __builtin_mul_overflow(a.i, b.i, &r);
        return overflow ? std::nullopt : std::optional(of(r));
    }
    return of(op == '+' ? a.d + b.d : op == '-' ? a.d - b.d : a.d * b.d);
}

/// Two stacks (Dijkstra's shunting yard) instead of recursion: nesting costs no stack. 'n' is the unary
/// minus.
class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    std::optional<Value> parse() {
        bool operand = true; // whether an operand or an operator comes next
        for (skip_spaces(); at_ < text_.size(); skip_spaces()) {
            if (operators_.size() > DEEPEST) return {};
            char c = text_[at_];
            if (operand) {
                if (c == '-' || c == '+') {
                    if (c == '-') operators_.push_back('n');
                    at_++;
                } else if (c == '(' && !string_ahead()) {
                    operators_.push_back('('), at_++;
                } else {
                    auto value = primary();
                    if (!value) return {};
                    values_.push_back(*value), operand = false;
                }
            } else if (c == ')') {
                if (!reduce_to(0) || operators_.empty()) return {};
                operators_.pop_back(), at_++;
            } else {
                int level = c == '+' || c == '-' ? 1 : c == '*' || c == '/' ? 2 : 0;
                if (!level || !reduce_to(level)) return {};
                operators_.push_back(c), at_++, operand = true;
            }
        }
        if (operand || !reduce_to(0) || !operators_.empty()) return {};
        return values_.back();
    }

private:
    void skip_spaces() {
        while (at_ < text_.size() && text_[at_] == ' ') at_++;
    }
    bool take(std::string_view word) {
        skip_spaces();
        if (!text_.substr(at_).starts_with(word)) return false;
        at_ += word.size();
        return true;
    }
    /// Applies waiting operators that bind at least as strongly as `level`, down to an open parenthesis.
    bool reduce_to(int level) {
        while (!operators_.empty() && operators_.back() != '(') {
            char op = operators_.back();
            int own = op == 'n' ? 3 : op == '*' || op == '/' ? 2 : 1;
            if (own < level) break;
            operators_.pop_back();
            Value b = values_.back();
            values_.pop_back();
            std::optional<Value> r;
            if (op == 'n') {
                r = b.whole ? apply('-', of(int64_t(0)), b) : of(-b.d);
            } else {
                r = apply(op, values_.back(), b);
                values_.pop_back();
            }
            if (!r) return false;
            values_.push_back(*r);
        }
        return true;
    }
    /// Whether the '(' here belongs to a string: ("word").count("o") and not ("word".count("o")). The ones
    /// that do are closed right after the closing quote.
    bool string_ahead() const {
        auto run = [&](size_t i, char c, int& count) {
            for (; i < text_.size() && (text_[i] == c || text_[i] == ' '); i++) count += text_[i] == c;
            return i;
        };
        int opened = 0, closed = 0;
        size_t quote = run(at_, '(', opened);
        if (quote >= text_.size() || (text_[quote] != '\'' && text_[quote] != '"')) return false;
        size_t close = text_.find(text_[quote], quote + 1);
        if (close == text_.npos) return false;
        run(close + 1, ')', closed);
        return closed >= opened;
    }
    std::optional<std::string_view> string() {
        size_t opened = 0;
        while (take("(")) opened++;
        skip_spaces();
        if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) return {};
        size_t close = text_.find(text_[at_], at_ + 1);
        if (close == text_.npos) return {};
        std::string_view content = text_.substr(at_ + 1, close - at_ - 1);
        if (content.find_first_of("'\"\\\r\n") != content.npos) return {};
        at_ = close + 1;
        for (; opened; opened--)
            if (!take(")")) return {};
        return content;
    }
    std::optional<Value> primary() {
        char c = text_[at_];
        if (c == '\'' || c == '"' || c == '(') {
            auto word = string();
            if (!word || !take(".count(")) return {};
            auto part = string();
            if (!part || part->empty() || !take(")")) return {};
            int64_t n = 0;
            for (size_t i = word->find(*part); i != word->npos; i = word->find(*part, i + part->size())) n++;
            return of(n);
        }
        if (take("len(")) {
            auto word = string();
            if (!word || !take(")")) return {};
            int64_t n = 0;
            for (char ch : *word) n += (ch & 0xC0) != 0x80; // characters, not bytes
            return of(n);
        }
        return number();
    }
    std::optional<Value> number() {
        std::string digits;
        bool fraction = false;
        for (; at_ < text_.size(); at_++) {
            char c = text_[at_];
            bool digit = c >= '0' && c <= '9';
            if (c == ',' && !digits.empty() && !fraction && at_ + 1 < text_.size() && text_[at_ + 1] >= '0' &&
                text_[at_ + 1] <= '9')
                continue;
            if (c == '.' && !fraction)
                fraction = true;
            else if (!digit)
                break;
            digits += c;
        }
        if (digits.empty() || digits == ".") return {};
        const char *begin = digits.data(), *end = begin + digits.size();
        if (!fraction) {
            int64_t i = 0;
            if (std::from_chars(begin, end, i).ec != std::errc()) return {};
            return of(i);
        }
        double d = 0;
        if (std::from_chars(begin, end, d).ec != std::errc()) return {};
        return of(d);
    }

    std::string_view text_;
    size_t at_ = 0;
    std::vector<char> operators_;
    std::vector<Value> values_;
};
} // namespace

std::optional<std::string> calculate(std::string_view expression) {
    if (expression.size() > LONGEST) return {};
    auto value = Parser(expression).parse();
    if (!value) return {};
    if (value->whole) return std::to_string(value->i);
    std::string text = format("%.12g", value->d);
    return text == "-0" ? "0" : text;
}

} // namespace nvl
