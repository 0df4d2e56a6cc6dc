#include "infer/stop_text.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace nvl {

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
    for (const std::string& s : stops_) check(!s.empty(), "a stop string is empty; expected some text");
}

std::string StopText::push(std::string_view text) {
    if (found_) return "";
    held_ += text;
    size_t first = held_.npos, unsure = 0;
    for (const std::string& s : stops_) {
        first = std::min(first, held_.find(s));
        size_t n = std::min(s.size() - 1, held_.size()); // the longest end of held_ that s begins with
        while (n && held_.compare(held_.size() - n, n, s, 0, n) != 0) n--;
        unsure = std::max(unsure, n);
    }
    found_ = first != held_.npos;
    std::string shown = held_.substr(0, found_ ? first : held_.size() - unsure);
    held_.erase(0, found_ ? held_.size() : shown.size());
    return shown;
}

std::string StopText::flush() { return std::exchange(held_, ""); }

} // namespace nvl
