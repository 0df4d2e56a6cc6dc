// Text that came out of a file and goes into an error line.
#pragma once
#include <string>
#include <string_view>

namespace nvl {

/// At most 80 bytes, with everything outside printable ASCII as \xNN: an error stays one readable line
/// whatever the file holds.
inline std::string printable(std::string_view text) {
    constexpr char digits[] = "0123456789abcdef";
    std::string out;
    for (unsigned char c : text.substr(0, 80))
        if (c >= ' ' && c < 127)
            out += char(c);
        else
            out += "\\x", out += digits[c >> 4], out += digits[c & 15];
    return text.size() > 80 ? out + "..." : out;
}

} // namespace nvl
