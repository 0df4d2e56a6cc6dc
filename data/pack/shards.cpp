#include "data/pack/shards.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>

#include "engine/base/check.h"
#include "engine/base/parallel.h"

namespace nvl {
namespace fs = std::filesystem;

namespace {
constexpr char MAGIC[8] = {'N', 'V', 'L', 'S', 'H', 'A', 'R', 'D'};
constexpr int64_t LIMIT = int64_t(1) << 40; // tokens or documents: keeps every sum of sizes far from overflow

struct Header {
    char magic[8];
    uint32_t version, token_bytes, masked, vocabulary;
    uint64_t tokens, documents;
    char tokenizer[64];
    uint64_t payload_checksum, reserved, header_checksum;
};
static_assert(sizeof(Header) == 128);

/// The checksum of a file that is produced in pieces: the pieces' own checksums, chained.
uint64_t chain(uint64_t sum, std::span<const std::byte> piece) {
    return std::rotl(sum, 17) * 0x9E3779B97F4A7C15ull ^ checksum(piece);
}
template <class T> std::span<const std::byte> bytes_of(const std::vector<T>& v) {
    return std::as_bytes(std::span(v));
}
void check_hash(const TokenizerId& tokenizer) {
    check(tokenizer.sha256.size() == 64,
          "shard: the tokenizer's hash must be 64 hex digits, found %zu characters", tokenizer.sha256.size());
    check(tokenizer.vocabulary > 0 && tokenizer.vocabulary <= INT32_MAX, "shard: bad vocabulary size %ld",
          long(tokenizer.vocabulary));
}
} // namespace

uint64_t checksum(std::span<const std::byte> bytes) {
    constexpr uint64_t P = 0x9FB21C651E98DF25ull, Q = 0xD6E8FEB86659FD93ull;
    uint64_t lane[4] = {P, Q, ~P, ~Q};
    size_t n = bytes.size(), i = 0;
    auto word = [&](size_t at, size_t count) {
        uint64_t w = 0;
        std::memcpy(&w, bytes.data() + at, count);
        return w;
    };
    for (; i + 32 <= n; i += 32)
        for (size_t k = 0; k < 4; k++) lane[k] = std::rotl((lane[k] ^ word(i + 8 * k, 8)) * P, 29);
    for (size_t k = 0; i < n; k++, i += 8)
        lane[k] = std::rotl((lane[k] ^ word(i, std::min<size_t>(8, n - i))) * P, 29);
    uint64_t h = n * Q;
    for (uint64_t l : lane) h = std::rotl((h ^ l) * Q, 31);
    h = (h ^ h >> 32) * P;
    return h ^ h >> 29;
}

void ShardWriter::add(std::span<const int32_t> tokens, std::span<const uint8_t> mask) {
    check_hash(tokenizer_);
    check(!tokens.empty(), "shard: document %ld has no tokens", long(documents()));
    check(mask.empty() || mask.size() == tokens.size(), "shard: %zu tokens with a mask of %zu", tokens.size(),
          mask.size());
    check(ends_.empty() || mask.empty() == mask_.empty(),
          "shard: some documents have a loss mask and some have none");
    for (int32_t id : tokens)
        check(id >= 0 && id < tokenizer_.vocabulary, "shard: id %d is outside of the vocabulary of %ld", id,
              long(tokenizer_.vocabulary));
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    for (uint8_t m : mask) mask_.push_back(m != 0);
    ends_.push_back(tokens_.size());
}

void ShardWriter::write(const std::string& path) const {
    check(!ends_.empty(), "%s: nothing to write: no document was added", path.c_str());
    Header h{};
    std::memcpy(h.magic, MAGIC, sizeof MAGIC);
    h.version = 1, h.token_bytes = tokenizer_.vocabulary <= 65536 ? 2 : 4, h.masked = !mask_.empty();
    h.vocabulary = uint32_t(tokenizer_.vocabulary), h.tokens = tokens_.size(), h.documents = ends_.size();
    std::memcpy(h.tokenizer, tokenizer_.sha256.data(), 64);
    std::vector<uint16_t> narrow;
    if (h.token_bytes == 2) narrow.assign(tokens_.begin(), tokens_.end());
    std::span<const std::byte> parts[] = {
        bytes_of(ends_), h.token_bytes == 2 ? bytes_of(narrow) : bytes_of(tokens_), bytes_of(mask_)};
    for (auto part : parts) h.payload_checksum = chain(h.payload_checksum, part);
    h.header_checksum = checksum(std::as_bytes(std::span(&h, 1)).first(120));
    write_file(path, [&](auto& write) {
        write(&h, sizeof h);
        for (auto part : parts)
            if (!part.empty()) write(part.data(), part.size());
    });
}

Shard::Shard(const std::string& path, const TokenizerId& tokenizer) : file_(path) {
    check_hash(tokenizer);
    const char* p = path.c_str();
    auto bytes = file_.bytes();
    Header h;
    check(bytes.size() >= sizeof h, "%s: not a token shard: %zu bytes are too short for a header", p,
          bytes.size());
    std::memcpy(&h, bytes.data(), sizeof h);
    check(!std::memcmp(h.magic, MAGIC, sizeof MAGIC), "%s: not a token shard (its first bytes are wrong)", p);
    check(h.header_checksum == checksum(bytes.first(120)),
          "%s: damaged: the header's checksum is wrong; delete it to have it made again", p);
    check(h.version == 1,
          "%s: shard version %u; this program reads version 1; delete it to have it made again", p,
          h.version);
    check((h.token_bytes == 2 || h.token_bytes == 4) && h.masked <= 1 && h.reserved == 0 && h.tokens > 0 &&
              h.documents > 0 && h.documents <= h.tokens && h.tokens < uint64_t(LIMIT),
          "%s: damaged: the header makes no sense", p);
    std::string hash(h.tokenizer, 64);
    check(hash == tokenizer.sha256,
          "%s: made with tokenizer %.12s, this one is %.12s; tokenize the text again", p, hash.c_str(),
          tokenizer.sha256.c_str());
    check(h.vocabulary == uint64_t(tokenizer.vocabulary), "%s: made for a vocabulary of %u, this one has %ld",
          p, h.vocabulary, long(tokenizer.vocabulary));
    uint64_t sizes[] = {h.documents * 8, h.tokens * h.token_bytes, h.masked ? h.tokens : 0};
    uint64_t expected = sizeof h + sizes[0] + sizes[1] + sizes[2];
    check(bytes.size() == expected,
          "%s: truncated or damaged: %zu bytes, its header says %lu; delete it to have it made again", p,
          bytes.size(), (unsigned long)expected);
    uint64_t sum = 0, at = sizeof h;
    for (uint64_t size : sizes) sum = chain(sum, bytes.subspan(at, size)), at += size;
    check(sum == h.payload_checksum,
          "%s: damaged: the checksum of its tokens is wrong; delete it to have it made again", p);

    tokens_ = int64_t(h.tokens), documents_ = int64_t(h.documents), narrow_ = h.token_bytes == 2;
    ends_ = reinterpret_cast<const uint64_t*>(bytes.data() + sizeof h);
    ids_ = bytes.data() + sizeof h + sizes[0];
    if (h.masked) mask_ = reinterpret_cast<const uint8_t*>(ids_ + sizes[1]);
    for (int64_t i = 0; i < documents_; i++)
        check(ends_[i] > (i ? ends_[i - 1] : 0), "%s: damaged: document %ld ends before it begins", p,
              long(i));
    check(ends_[documents_ - 1] == h.tokens, "%s: damaged: its documents do not cover its tokens", p);
    for (int64_t i = 0; i < tokens_; i++)
        check(uint32_t(token(i)) < h.vocabulary, "%s: damaged: id %u is outside of its vocabulary", p,
              uint32_t(token(i)));
}

std::vector<int32_t> encode_document(std::string_view text, const Encode& encode,
                                     const ShardOptions& options) {
    std::vector<int32_t> ids = encode(text);
    if (options.begin >= 0) ids.insert(ids.begin(), options.begin);
    if (options.end >= 0) ids.push_back(options.end);
    return ids;
}

std::vector<std::string> write_shards(const std::string& folder, const std::string& prefix,
                                      std::span<const std::string> texts, const Encode& encode,
                                      const TokenizerId& tokenizer, const ShardOptions& options) {
    auto ids_of = [&](int64_t i) { return encode_document(texts[size_t(i)], encode, options); };
    return write_shards(folder, prefix, int64_t(texts.size()), ids_of, tokenizer, options.tokens_per_shard);
}

std::vector<std::string> write_shards(const std::string& folder, const std::string& prefix, int64_t documents,
                                      const std::function<std::vector<int32_t>(int64_t)>& ids_of,
                                      const TokenizerId& tokenizer, int64_t tokens_per_shard) {
    check(documents > 0, "%s: no documents to tokenize", folder.c_str());
    make_directories(folder);
    std::vector<std::string> paths;
    auto writer = std::make_unique<ShardWriter>(tokenizer);
    auto close = [&] {
        paths.push_back(format("%s/%s-%05zu.shard", folder.c_str(), prefix.c_str(), paths.size()));
        writer->write(paths.back());
        writer = std::make_unique<ShardWriter>(tokenizer);
    };
    constexpr int64_t GROUP = 4096; // documents encoded at a time: bounds the memory, keeps the threads busy
    for (int64_t begin = 0; begin < documents; begin += GROUP) {
        int64_t n = std::min(GROUP, documents - begin);
        std::vector<std::vector<int32_t>> ids(static_cast<size_t>(n));
        parallel_for(n, 1, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; i++) ids[size_t(i)] = ids_of(begin + i);
        });
        for (const auto& document : ids) {
            if (!document.empty()) writer->add(document);
            if (writer->tokens() >= tokens_per_shard) close();
        }
    }
    if (writer->documents() || paths.empty()) close();
    return paths;
}

std::vector<std::string> find_shards(const std::string& folder, const std::string& prefix) {
    std::vector<std::string> paths;
    check(is_directory(folder), "%s: no such folder", folder.c_str());
    for (auto& entry : fs::directory_iterator(folder)) {
        std::string name = entry.path().filename().string();
        if (name.starts_with(prefix + "-") && name.ends_with(".shard"))
            paths.push_back(entry.path().string());
    }
    std::sort(paths.begin(), paths.end());
    check(!paths.empty(), "%s: no shards named %s-*.shard", folder.c_str(), prefix.c_str());
    return paths;
}

} // namespace nvl
