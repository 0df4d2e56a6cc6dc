// SentencePiece-style BPE, as Llama 2 and Gemma have it: pieces are text with U+2581 for a space, a chunk
// starts from its characters, and a character without a piece becomes the tokens of its bytes ("<0x41>") or
// the unknown token.
//
// Which merge comes first is said by a list of merges (tokenizer.json) or by scores (GGUF): of all adjacent
// pairs whose text together is a piece, the one of highest score, leftmost of equals.
#pragma once
#include <span>

#include "data/tokenizer/bpe.h"

namespace nvl {

constexpr std::string_view SPACE_PIECE = "\xE2\x96\x81"; // U+2581

/// Where a text gets a space in front that it does not have.
enum class PrefixSpace : uint8_t { never, first, always }; // first: not after an added token

struct PieceOptions {
    bool replaces = false, prepends = false; // the normal form: spaces become U+2581; one in front of a text
    bool metaspace = false; // the pre-tokenizer: the same, but none in front of a text that begins with one
    PrefixSpace prefix = PrefixSpace::never; // of the pre-tokenizer
    bool split = false;                      // every space begins a chunk: runs of them are never merged
    bool byte_fallback = false;
    bool fuse_unknown = false;      // neighbours without a piece are one unknown token
    bool drops_first_space = false; // decoding drops one space in front
    std::vector<float> scores;      // by id; empty: a list of merges says the order
    bool operator==(const PieceOptions&) const = default;
};

class PieceBpe {
public:
    /// `ordinary`: by id, whether merges may make it (not an added or byte token); used with scores.
    PieceBpe(const std::vector<std::string>& vocabulary, const std::vector<std::pair<int, int>>& merges,
             const PieceOptions& options, const std::vector<uint8_t>& ordinary, int unknown,
             const std::string& source);

    /// Appends the ids of a text in which spaces are U+2581 already.
    void encode(std::string_view text, std::vector<int>& ids, ChunkCache& cache) const;
    /// A place at or after `from` where the text may be cut without changing any id, or its end.
    size_t safe_cut(std::string_view text, size_t from) const;
    /// The merges by rank, as a tokenizer.json lists them.
    std::vector<std::pair<int, int>> merges() const;
    /// Bytes that no token can spell.
    int missing_bytes() const;

private:
    using Ids = std::unordered_map<std::string_view, int>;
    void rules_of_scores(const std::vector<std::string>& vocabulary, const PieceOptions& options,
                         const std::vector<uint8_t>& ordinary);
    void rules_of_merges(const std::vector<std::string>& vocabulary,
                         const std::vector<std::pair<int, int>>& merges, const Ids& id_of);
    bool may_cut(std::string_view text, size_t at) const;
    void symbols_of(std::string_view chunk, std::vector<int>& symbols) const;
    void put_unknown(std::string_view character, std::vector<int>& symbols) const;
    void encode_chunk(std::string_view chunk, std::vector<int>& ids, ChunkCache& cache) const;

    std::string source_;
    std::vector<MergeRule> rules_;
    std::vector<uint32_t> ranks_;
    std::unordered_map<uint32_t, int> characters_; // code point -> id; from `size_` on: no piece of their own
    std::vector<std::string> nameless_;            // the characters of ids from size_ on
    int size_ = 0, unknown_ = -1;
    int byte_ids_[256];
    bool split_, fuse_;
    bool joins_[256] = {}; // last bytes of characters that stand before a space inside a piece
    std::unique_ptr<Bpe> bpe_;
};

/// "<0x41>" -> 0x41; -1 for anything else.
int byte_of_piece(std::string_view piece);
/// Replaces every `from` in `text`.
std::string replaced(std::string_view text, std::string_view from, std::string_view to);

} // namespace nvl
