// The tokenizer: text to ids and back.
//
//   text -> added tokens are found -> normal form -> split into chunks -> byte-pair merges -> ids
//
// Byte-level BPE (every string of bytes round-trips), BPE of SentencePiece's kind (pieces.h: round-trips with
// byte fallback), or WordPiece (wordpiece.h: the normal form forgets case and white space).
//
// Immutable once built; every method may be called from many threads.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/added.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/pieces.h"
#include "data/tokenizer/splitter.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/wordpiece.h"

namespace nvl {

enum class Algorithm : uint8_t { byte_bpe, piece_bpe, wordpiece };

/// Everything a tokenizer is made of, as files have it. Readers fill it; Tokenizer's constructor checks it.
struct TokenizerParts {
    Algorithm algorithm = Algorithm::byte_bpe;
    PieceOptions pieces;    // of piece_bpe
    WordPieceOptions words; // of wordpiece
    /// By id: the piece in the printable alphabet of byte-level vocabularies (unicode.h), empty where the
    /// model has no such id (an added token may stand there).
    std::vector<std::string> vocabulary;
    std::vector<std::pair<int, int>> merges; // by rank
    bool ignore_merges = false; // a chunk that is a piece is that piece, reachable by merges or not
    std::string unknown;        // piece for bytes the vocabulary lacks; empty: they are dropped
    NormalForm normal_form = NormalForm::none;
    bool add_prefix_space = false;
    Splitter splitter;
    std::vector<AddedToken> added;
    std::vector<int> prefix, suffix;  // ids put around a text that is encoded with its frame (bos, eos)
    std::string bos, eos, pad;        // contents of added tokens, or empty
    std::string chat_template;        // Jinja
    std::string source = "tokenizer"; // for error messages
};

class Tokenizer {
public:
    explicit Tokenizer(TokenizerParts parts);

    /// From a GGUF file's arrays: pieces, "left right" merges, types (1 normal, 2 unknown, 3 control, 4
    /// user-defined, 5 unused, 6 byte; empty: all normal), the name of the pre-tokenizer, ids of bos and eos
    /// (-1: none).
    static Tokenizer from_vocabulary(const std::vector<std::string>& tokens,
                                     const std::vector<std::string>& merges, const std::vector<int>& types,
                                     const std::string& pre, int bos, int eos, bool add_bos,
                                     bool add_eos = false, const std::string& chat_template = "",
                                     const std::string& source = "vocabulary");
    /// The same for the vocabularies of SentencePiece's kind ("llama"), with a score per token.
    static Tokenizer from_scores(const std::vector<std::string>& tokens, std::vector<float> scores,
                                 const std::vector<int>& types, bool space_in_front, int bos, int eos,
                                 bool add_bos, bool add_eos = false, const std::string& chat_template = "",
                                 const std::string& source = "vocabulary");
    /// From a BERT folder that has only vocab.txt (and tokenizer_config.json).
    static Tokenizer from_vocab_txt(const std::string& folder);
    /// From an HF directory: tokenizer.json and, where present, tokenizer_config.json,
    /// special_tokens_map.json and chat_template.jinja; or from the path of a tokenizer.json.
    static Tokenizer from_hf(const std::string& path);
    /// Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json: AutoTokenizer loads them.
    void save(const std::string& directory) const;

    /// Ids of `text`. Special tokens spelled out in the text are ordinary text, unless `special`: then they
    /// become their ids (for text from a template, never for what a user typed). `frame` puts bos and eos
    /// around where the model wants them.
    std::vector<int> encode(std::string_view text, bool special = false, bool frame = false) const;
    /// The same for many documents, in parallel.
    std::vector<std::vector<int>> encode_batch(std::span<const std::string_view> texts, bool special = false,
                                               bool frame = false) const;
    /// The bytes of the ids, special tokens spelled out or left away.
    std::string decode(std::span<const int> ids, bool skip_special = false) const;

    int size() const { return int(pieces_.size()); }
    /// The bytes that an id stands for; empty for ids without a token.
    std::string_view piece(int id) const;
    /// Length of piece(id) for bits per byte: 0 for special tokens.
    int bytes_of(int id) const;
    bool is_special(int id) const;
    /// Id of the added token with this content, or -1; special() fails instead.
    int find(std::string_view content) const;
    int special(std::string_view content) const;
    int bos() const { return bos_; } // -1: none
    int eos() const { return eos_; }
    int pad() const { return pad_; }
    bool adds_bos() const { return bos_ >= 0 && !parts_.prefix.empty() && parts_.prefix[0] == bos_; }
    const std::string& chat_template() const { return parts_.chat_template; }
    void set_chat_template(std::string text) { parts_.chat_template = std::move(text); }
    /// Bytes that the vocabulary cannot spell: they vanish in encode. 0 for every tokenizer trained here.
    int missing_bytes() const { return missing_bytes_; }
    /// sha256 of all that decides ids (pieces, merges, added tokens, patterns), the same from whichever file
    /// it came. Shards and checkpoints carry it.
    const std::string& hash() const { return hash_; }
    const TokenizerParts& parts() const { return parts_; }
    /// The merges by rank, of a vocabulary with scores too.
    std::vector<std::pair<int, int>> merges() const {
        return piece_bpe_ ? piece_bpe_->merges() : parts_.merges;
    }

private:
    struct Segment;
    struct Scratch;
    class ScratchPool;
    void build_pieces();
    void build_merges();
    void build_byte_merges();
    void build_piece_merges(int unknown);
    int unknown_id() const;
    void build_added();
    void compute_hash();
    bool normalises() const;
    std::string normal_form(std::string_view text) const;
    void add_spaces_in_front(std::string_view text, std::vector<Segment>& out) const;
    size_t safe_cut(std::string_view text, size_t from) const;
    void segments(std::string_view text, bool special, std::vector<Segment>& out) const;
    void encode_plain(std::string_view text, std::vector<int>& ids, Scratch& scratch) const;

    TokenizerParts parts_;
    std::vector<std::string> pieces_;                      // by id, bytes
    std::vector<uint8_t> special_;                         // by id
    std::unordered_map<std::string_view, int> whole_;      // bytes of pieces, for ignore_merges
    std::unordered_map<std::string_view, int> by_content_; // of added tokens
    std::unique_ptr<Bpe> bpe_;                             // one of these three
    std::unique_ptr<PieceBpe> piece_bpe_;
    std::unique_ptr<WordPiece> wordpiece_;
    AddedMatcher raw_, normalized_;
    std::shared_ptr<ScratchPool> pool_;
    int bos_ = -1, eos_ = -1, pad_ = -1, missing_bytes_ = 0;
    std::string hash_;
};

/// A tokenizer from a model's path: an HF directory (or checkpoint of ours), a tokenizer.json, or a GGUF
/// file.
Tokenizer load_tokenizer(const std::string& path);

/// Text from ids one by one: bytes of an unfinished character are held back, ill-formed ones become U+FFFD,
/// so that every string it returns is well-formed UTF-8.
class StreamDecoder {
public:
    explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
        : tokenizer_(&tokenizer), skip_special_(skip_special) {}
    std::string push(int id);
    /// What is held back, at the end of the stream.
    std::string finish();

private:
    const Tokenizer* tokenizer_;
    bool skip_special_;
    std::string held_;
};

} // namespace nvl
