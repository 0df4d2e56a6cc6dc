// Small text helpers: human numbers, edit distance, splitting.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace nvl {

std::string human(double n, const char* unit); // 1234567, "B" -> "1.235MB" (powers of 1000)
std::string human_time(double seconds);        // "3.2s", "4m10s", "2h05m"
std::string with_commas(int64_t n);            // 1234567 -> "1,234,567"
std::vector<std::string> split(std::string_view text, char separator);
bool matches(std::string_view glob, std::string_view text); // '*' any run of characters, '?' any one
/// The candidate with the smallest edit distance, for "did you mean"; empty if none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
/// The longest prefix of `bytes` that does not end inside a UTF-8 sequence (streaming holds the rest back).
size_t utf8_complete(std::string_view bytes);

} // namespace nvl
