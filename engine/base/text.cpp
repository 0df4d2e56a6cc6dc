#include "engine/base/text.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"

namespace nvl {

std::string human(double n, const char* unit) {
    const char* prefix = " kMGTPE";
    while (std::abs(n) >= 999.95 && prefix[1]) n /= 1000, prefix++;
    return *prefix == ' ' ? format("%.4g%s", n, unit) : format("%.4g%c%s", n, *prefix, unit);
}
std::string human_time(double seconds) {
    auto s = int64_t(seconds + 0.5);
    if (seconds < 60) return format("%.1fs", seconds);
    if (s < 3600) return format("%ldm%02lds", long(s / 60), long(s % 60));
    return format("%ldh%02ldm", long(s / 3600), long(s % 3600 / 60));
}
std::string with_commas(int64_t n) {
    std::string s = std::to_string(n);
    for (int64_t i = int64_t(s.size()) - 3; i > (n < 0 ? 1 : 0); i -= 3) s.insert(size_t(i), ",");
    return s;
}
std::vector<std::string> split(std::string_view text, char separator) {
    std::vector<std::string> parts;
    for (size_t begin = 0;;) {
        size_t end = text.find(separator, begin);
        parts.emplace_back(text.substr(begin, end == text.npos ? text.npos : end - begin));
        if (end == text.npos) return parts;
        begin = end + 1;
    }
}
bool matches(std::string_view glob, std::string_view text) {
    size_t g = 0, t = 0, star = glob.npos, mark = 0;
    while (t < text.size()) {
        if (g < glob.size() && (glob[g] == '?' || glob[g] == text[t]))
            g++, t++;
        else if (g < glob.size() && glob[g] == '*')
            star = g++, mark = t;
        else if (star != glob.npos)
            g = star + 1, t = ++mark;
        else
            return false;
    }
    while (g < glob.size() && glob[g] == '*') g++;
    return g == glob.size();
}

static size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); j++) row[j] = j;
    for (size_t i = 1; i <= a.size(); i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); j++) {
            size_t up = row[j];
            row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
            diagonal = up;
        }
    }
    return row[b.size()];
}
std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
    std::string best;
    size_t distance = std::max<size_t>(3, word.size() / 2 + 1);
    for (const std::string& c : candidates)
        if (size_t d = edit_distance(word, c); d < distance) distance = d, best = c;
    return best;
}

size_t utf8_complete(std::string_view bytes) {
    size_t n = bytes.size();
    for (size_t back = 1; back <= std::min<size_t>(3, n); back++) {
        auto c = static_cast<unsigned char>(bytes[n - back]);
        if (c < 0x80) return n;
        if (c >= 0xC0) {
            size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
            return length > back ? n - back : n;
        }
    }
    return n;
}

} // namespace nvl
