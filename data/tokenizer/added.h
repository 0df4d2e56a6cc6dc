// Tokens that stand in text as themselves and are found before anything is split: special ones (control: only
// trusted text may contain them) and user-defined ones (always found).
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace nvl {

struct AddedToken {
    int id = -1;
    std::string content;
    bool special = true;
    bool lstrip = false, rstrip = false; // takes the white space before or after it along
    bool single_word = false;            // only where no word character touches it
    bool normalized = false;             // looked for in the normalised text
};

/// Finds added tokens leftmost first, of those the longest.
class AddedMatcher {
public:
    struct Match {
        size_t begin, end;
        int id;
    };
    void add(const AddedToken& token, std::string content);
    bool empty() const { return tokens_.empty(); }
    /// Matches in order, without overlap. Without `special`, places of special tokens are ordinary text.
    std::vector<Match> find(std::string_view text, bool special) const;

private:
    struct Node {
        std::vector<std::pair<uint8_t, int>> next; // sorted by byte
        int token = -1;                            // index in tokens_ of the token that ends here
    };
    int child(int node, uint8_t byte) const;
    std::vector<AddedToken> tokens_;
    std::vector<Node> nodes_{1};
    bool starts_[256] = {};
};

} // namespace nvl
