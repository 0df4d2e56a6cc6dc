// Tokenised shards: documents as token ids in one file that is mapped, not read.
//
//   0    char[8]   "NVLSHARD"
//   8    u32       version, 1
//   12   u32       bytes per token: 2 (vocabulary up to 65536) or 4
//   16   u32       1 if a loss mask follows the tokens, else 0
//   20   u32       vocabulary size: every id is below it
//   24   u64       tokens
//   32   u64       documents
//   40   char[64]  sha256 of the tokenizer, lower-case hex
//   104  u64       checksum of everything after the header
//   112  u64       0
//   120  u64       checksum of bytes 0..119
//   128  u64[documents]   where each document ends, in tokens
//        u16|u32[tokens]
//        u8[tokens]       1 where the token is to be learned (only with a mask)
//
// Little endian. A reader checks all of it before the first token is used.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/file.h"

namespace nvl {

/// What is known of the tokenizer that made (or will read) the ids.
struct TokenizerId {
    std::string sha256;     // lower-case hex of its defining file
    int64_t vocabulary = 0; // ids are 0..vocabulary-1
};

/// 64-bit checksum of bytes: four interleaved multiply-and-rotate lanes, so it runs at memory speed. It finds
/// damage, not forgery.
uint64_t checksum(std::span<const std::byte> bytes);

/// Collects documents in memory and writes them as one file, atomically.
class ShardWriter {
public:
    explicit ShardWriter(TokenizerId tokenizer) : tokenizer_(std::move(tokenizer)) {}
    /// `mask` is empty (everything is learned) or one 0/1 per token; all documents of a shard have one, or
    /// none.
    void add(std::span<const int32_t> tokens, std::span<const uint8_t> mask = {});
    int64_t tokens() const { return int64_t(tokens_.size()); }
    int64_t documents() const { return int64_t(ends_.size()); }
    /// Writes the shard; one without documents is an error.
    void write(const std::string& path) const;

private:
    TokenizerId tokenizer_;
    std::vector<int32_t> tokens_;
    std::vector<uint8_t> mask_;
    std::vector<uint64_t> ends_;
};

/// A validated read-only shard.
class Shard {
public:
    /// Throws Error in one line when the file is truncated, damaged or was made with another tokenizer.
    Shard(const std::string& path, const TokenizerId& tokenizer);

    int64_t tokens() const { return tokens_; }
    int64_t documents() const { return documents_; }
    int64_t document_begin(int64_t i) const { return i ? int64_t(ends_[i - 1]) : 0; }
    int64_t document_end(int64_t i) const { return int64_t(ends_[i]); }
    int32_t token(int64_t i) const {
        return narrow_ ? reinterpret_cast<const uint16_t*>(ids_)[i]
                       : reinterpret_cast<const int32_t*>(ids_)[i];
    }
    bool learned(int64_t i) const { return !mask_ || mask_[i]; }
    const std::string& path() const { return file_.path(); }

private:
    MappedFile file_;
    bool narrow_ = false;
    int64_t tokens_ = 0, documents_ = 0;
    const uint64_t* ends_ = nullptr;
    const std::byte* ids_ = nullptr;
    const uint8_t* mask_ = nullptr;
};

/// Ids of ordinary text, with no special token ever.
using Encode = std::function<std::vector<int32_t>(std::string_view)>;

struct ShardOptions {
    int32_t begin = -1, end = -1;                 // ids put around every document; -1 for none
    int64_t tokens_per_shard = int64_t(64) << 20; // a shard is closed by the first document that reaches this
};

/// Writes `documents` documents in order as folder/prefix-00000.shard, -00001 ...; returns the paths.
/// ids_of(i) is called on all threads; what is written does not depend on their number. A document without
/// ids is left out.
std::vector<std::string> write_shards(const std::string& folder, const std::string& prefix, int64_t documents,
                                      const std::function<std::vector<int32_t>(int64_t)>& ids_of,
                                      const TokenizerId& tokenizer,
                                      int64_t tokens_per_shard = ShardOptions().tokens_per_shard);
/// The same for texts.
std::vector<std::string> write_shards(const std::string& folder, const std::string& prefix,
                                      std::span<const std::string> texts, const Encode& encode,
                                      const TokenizerId& tokenizer, const ShardOptions& options = {});
/// Ids of one text as a document: options.begin, the text, options.end.
std::vector<int32_t> encode_document(std::string_view text, const Encode& encode,
                                     const ShardOptions& options);

/// folder/prefix-*.shard, sorted; none is an error.
std::vector<std::string> find_shards(const std::string& folder, const std::string& prefix);

} // namespace nvl
