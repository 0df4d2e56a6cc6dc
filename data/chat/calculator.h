// The calculator the model may call: arithmetic and counting letters, and nothing else.
//
//   expression  := term (('+' | '-') term)*
//   term        := factor (('*' | '/') factor)*
//   factor      := ('+' | '-') factor | primary
//   primary     := number | '(' expression ')' | string '.count(' string ')' | 'len(' string ')'
//   string      := 'text' | "text" | '(' string ')'            text without quotes, backslashes and line ends
//   number      := digits with commas between them, with or without a fraction: 1,234  .5  3.
//
// Whole numbers are exact 64-bit integers; a quotient that is whole is an integer again (10/2 is 5).
// Everything else is a double shown with 12 significant digits.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace nvl {

/// The value as text, or nothing: a syntax error, division by zero, an integer beyond 64 bits, a result that
/// is not finite, more than 256 characters, or more than 64 operators waiting at once. Never throws.
std::optional<std::string> calculate(std::string_view expression);

} // namespace nvl
