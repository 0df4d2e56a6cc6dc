// WordPiece, as BERT has it.                                        Devlin et al. 2018, arXiv:1810.04805
//
//   text -> normal form -> words (white space splits, every punctuation mark is a word) -> pieces
//
// A word becomes the longest piece it begins with, then the longest "##" piece, and so on; a word that cannot
// be spelled so is one unknown token.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nvl {

struct WordPieceOptions {
    bool clean = true; // control characters go, white space becomes a space
    bool cjk = true;   // a space around every CJK ideograph
    bool lowercase = true, strip_accents = true;
    std::string prefix = "##"; // of pieces that continue a word
    int longest = 100;         // characters of a word; longer ones are unknown
    bool cleanup = true;       // decoding puts no space before . ? ! ,
    bool operator==(const WordPieceOptions&) const = default;
};

class WordPiece {
public:
    WordPiece(const std::vector<std::string>& vocabulary, const WordPieceOptions& options, int unknown);

    std::string normalize(std::string_view text) const;
    /// Appends the ids of a normalised text.
    void encode(std::string_view text, std::vector<int>& ids) const;
    /// A white space at or after `from`, or the end of the text.
    static size_t safe_cut(std::string_view text, size_t from);
    /// What a piece adds to a decoded text: "##ing" -> "ing", "sing" -> " sing".
    std::string decoded(const std::string& piece) const;

private:
    void encode_word(std::string_view word, std::vector<int>& ids) const;
    WordPieceOptions options_;
    std::unordered_map<std::string_view, int> starts_, continues_; // continues_: without the prefix
    int unknown_;
};

} // namespace nvl
