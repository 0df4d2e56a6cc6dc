// Text on its way to a reader: whole UTF-8 characters only, and nothing of a stop string ever.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace nvl {

/// Holds back what may still turn out to be the beginning of a stop string.
class StopText {
public:
    explicit StopText(std::vector<std::string> stops); // an empty stop string is an error
    /// What can be shown now that `text` came. After a stop string was found nothing is shown any more.
    std::string push(std::string_view text);
    /// What was held back, when nothing follows (the end, or something that is not text).
    std::string flush();
    bool found() const { return found_; }

private:
    std::vector<std::string> stops_;
    std::string held_;
    bool found_ = false;
};

} // namespace nvl
