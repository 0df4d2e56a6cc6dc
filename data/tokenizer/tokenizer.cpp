#include "data/tokenizer/tokenizer.h"

#include <algorithm>
#include <mutex>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "engine/base/text.h"
#include "engine/io/file.h"
#include "engine/io/printable.h"

namespace nvl {

// Text between added tokens, in its normal form, or one added token.
struct Tokenizer::Segment {
    std::string_view text;
    int id = -1;
    std::shared_ptr<const std::string> owner; // of normalised text
};

struct Tokenizer::Scratch {
    ChunkCache cache;
    std::vector<uint32_t> ends;
};

// A scratch per thread that encodes, kept with its warm cache for the next call.
class Tokenizer::ScratchPool {
public:
    struct Lease {
        ScratchPool& pool;
        std::unique_ptr<Scratch> scratch;
        explicit Lease(ScratchPool& p) : pool(p), scratch(p.take()) {}
        ~Lease() { pool.give(std::move(scratch)); }
    };

private:
    std::unique_ptr<Scratch> take() {
        std::lock_guard lock(mutex_);
        if (free_.empty()) return std::make_unique<Scratch>();
        auto s = std::move(free_.back());
        free_.pop_back();
        return s;
    }
    void give(std::unique_ptr<Scratch> s) {
        std::lock_guard lock(mutex_);
        free_.push_back(std::move(s));
    }
    std::mutex mutex_;
    std::vector<std::unique_ptr<Scratch>> free_;
};

Tokenizer::Tokenizer(TokenizerParts parts)
    : parts_(std::move(parts)), pool_(std::make_shared<ScratchPool>()) {
    build_pieces();
    build_merges();
    build_added();
    compute_hash();
}

void Tokenizer::build_pieces() {
    const char* source = parts_.source.c_str();
    size_t n = parts_.vocabulary.size();
    for (auto& a : parts_.added) {
        check(a.id >= 0 && size_t(a.id) < n + parts_.added.size() + 65536,
              "%s: the added token '%s' has id %d, far outside the vocabulary of %zu", source,
              printable(a.content).c_str(), a.id, parts_.vocabulary.size());
        check(!a.content.empty(), "%s: the added token %d is empty", source, a.id);
        n = std::max(n, size_t(a.id) + 1);
    }
    check(n > 0, "%s: the vocabulary is empty", source);
    parts_.vocabulary.resize(n);
    pieces_.resize(n);
    special_.assign(n, 0);
    parts_.pieces.scores.resize(parts_.pieces.scores.empty() ? 0 : n, 0);
    for (size_t i = 0; i < n && parts_.algorithm == Algorithm::byte_bpe; i++)
        if (!from_letters(parts_.vocabulary[i], pieces_[i])) pieces_[i] = parts_.vocabulary[i];
}

int Tokenizer::unknown_id() const {
    if (parts_.unknown.empty()) return -1;
    auto at = std::ranges::find(parts_.vocabulary, parts_.unknown);
    check(at != parts_.vocabulary.end(), "%s: the unknown token '%s' is not in the vocabulary",
          parts_.source.c_str(), printable(parts_.unknown).c_str());
    return int(at - parts_.vocabulary.begin());
}

void Tokenizer::build_merges() {
    auto& vocabulary = parts_.vocabulary;
    if (parts_.algorithm == Algorithm::byte_bpe) return build_byte_merges();
    int unknown = unknown_id();
    if (parts_.algorithm == Algorithm::piece_bpe) return build_piece_merges(unknown);
    check(unknown >= 0, "%s: a WordPiece vocabulary needs an unknown token", parts_.source.c_str());
    wordpiece_ = std::make_unique<WordPiece>(vocabulary, parts_.words, unknown);
    for (size_t i = 0; i < vocabulary.size(); i++)
        if (!vocabulary[i].empty()) pieces_[i] = wordpiece_->decoded(vocabulary[i]);
}

void Tokenizer::build_piece_merges(int unknown) {
    auto& vocabulary = parts_.vocabulary;
    std::vector<uint8_t> ordinary(vocabulary.size(), 1);
    for (auto& a : parts_.added) ordinary[size_t(a.id)] = 0;
    for (size_t i = 0; i < vocabulary.size(); i++) {
        int byte = parts_.pieces.byte_fallback ? byte_of_piece(vocabulary[i]) : -1;
        if (byte >= 0) ordinary[i] = 0;
        pieces_[i] = byte >= 0 ? std::string(1, char(byte)) : replaced(vocabulary[i], SPACE_PIECE, " ");
    }
    piece_bpe_ = std::make_unique<PieceBpe>(vocabulary, parts_.merges, parts_.pieces, ordinary, unknown,
                                            parts_.source);
    missing_bytes_ = piece_bpe_->missing_bytes();
}

void Tokenizer::build_byte_merges() {
    const char* source = parts_.source.c_str();
    auto& vocabulary = parts_.vocabulary;
    std::unordered_map<std::string_view, int> id_of;
    id_of.reserve(vocabulary.size());
    for (size_t i = 0; i < vocabulary.size(); i++) {
        if (vocabulary[i].empty()) continue;
        auto [at, fresh] = id_of.emplace(vocabulary[i], int(i));
        check(fresh, "%s: the piece '%s' has two ids, %d and %zu", source, printable(vocabulary[i]).c_str(),
              at->second, i);
    }
    std::vector<MergeRule> rules;
    rules.reserve(parts_.merges.size());
    std::string joined;
    for (auto [a, b] : parts_.merges) {
        joined = vocabulary[size_t(a)] + vocabulary[size_t(b)];
        auto result = id_of.find(joined);
        check(result != id_of.end(), "%s: merge %zu makes '%s', which is not in the vocabulary", source,
              rules.size(), printable(joined).c_str());
        rules.push_back({a, b, result->second});
    }
    int unknown = -1;
    if (!parts_.unknown.empty()) {
        auto at = id_of.find(parts_.unknown);
        if (at != id_of.end()) unknown = at->second;
    }
    std::vector<int> byte_ids(256);
    for (int b = 0; b < 256; b++) {
        std::string letter;
        append_utf8(letter, byte_to_letter(uint8_t(b)));
        auto at = id_of.find(letter);
        byte_ids[size_t(b)] = at != id_of.end() ? at->second : unknown;
        missing_bytes_ += at == id_of.end();
    }
    check(missing_bytes_ < 256,
          "%s: not one of the 256 bytes is in the vocabulary: expected a byte-level BPE", source);
    check(!missing_bytes_ || parts_.unknown.empty() || unknown >= 0,
          "%s: the unknown token '%s' is not in the vocabulary", source, printable(parts_.unknown).c_str());
    bpe_ = std::make_unique<Bpe>(std::move(byte_ids), rules);
    if (parts_.ignore_merges) {
        std::vector<uint8_t> added(vocabulary.size(),
                                   0); // an added token is never made from text by accident
        for (auto& a : parts_.added) added[size_t(a.id)] = 1;
        for (size_t i = 0; i < pieces_.size(); i++)
            if (!vocabulary[i].empty() && !added[i]) whole_.emplace(pieces_[i], int(i));
    }
}

void Tokenizer::build_added() {
    const char* source = parts_.source.c_str();
    std::ranges::stable_sort(parts_.added, {}, &AddedToken::id);
    for (size_t i = 0; i < parts_.added.size(); i++) {
        auto& a = parts_.added[i];
        check(i == 0 || parts_.added[i - 1].id != a.id, "%s: two added tokens have id %d", source, a.id);
        auto& piece = parts_.vocabulary[size_t(a.id)];
        check(piece.empty() || piece == a.content || to_letters(a.content) == piece,
              "%s: id %d is '%s' in the vocabulary but '%s' among the added tokens", source, a.id,
              printable(piece).c_str(), printable(a.content).c_str());
        pieces_[size_t(a.id)] = wordpiece_ ? " " + a.content : a.content;
        special_[size_t(a.id)] = a.special;
    }
    for (auto& a : parts_.added) {
        check(by_content_.emplace(a.content, a.id).second, "%s: two added tokens are '%s'", source,
              printable(a.content).c_str());
        if (a.normalized)
            normalized_.add(a, normalises() ? normal_form(a.content) : a.content);
        else
            raw_.add(a, a.content);
    }
    auto id_of = [&](const std::string& content, const char* role) {
        int id = content.empty() ? -1 : find(content);
        check(content.empty() || id >= 0, "%s: the %s token '%s' is not among the added tokens", source, role,
              printable(content).c_str());
        return id;
    };
    bos_ = id_of(parts_.bos, "bos"), eos_ = id_of(parts_.eos, "eos"), pad_ = id_of(parts_.pad, "pad");
    for (auto* ids : {&parts_.prefix, &parts_.suffix})
        for (int id : *ids)
            check(id >= 0 && id < size(), "%s: the template names id %d, outside the vocabulary of %d",
                  source, id, size());
}

void Tokenizer::compute_hash() {
    std::string text = "nvl tokenizer 1\n";
    auto put = [&](std::string_view s) {
        text += std::to_string(s.size()) + ":", text.append(s), text += '\n';
    };
    for (auto& p : pieces_) put(p);
    for (auto& a : parts_.added)
        text += format("added %d %d %d %d %d\n", a.id, a.special, a.lstrip, a.rstrip, a.single_word);
    for (auto [a, b] : parts_.merges) text += std::to_string(a) + " " + std::to_string(b) + "\n";
    for (auto& s : parts_.splitter.stages()) put(Splitter::pattern_of(s));
    text += format("%d %d %d\n", int(parts_.normal_form), parts_.ignore_merges, parts_.add_prefix_space);
    if (piece_bpe_) {
        auto& o = parts_.pieces;
        text += format("pieces %d %d %d %d %d %d %d %d\n", o.replaces, o.prepends, o.metaspace, int(o.prefix),
                       o.split, o.byte_fallback, o.fuse_unknown, o.drops_first_space);
        for (float s : o.scores) text += format("%.9g\n", double(s));
    }
    if (wordpiece_) {
        auto& o = parts_.words;
        text += format("words %d %d %d %d %d %d\n", o.clean, o.cjk, o.lowercase, o.strip_accents, o.longest,
                       o.cleanup);
        put(o.prefix);
    }
    if (parts_.algorithm != Algorithm::byte_bpe) put(parts_.unknown);
    hash_ = sha256(std::as_bytes(std::span(text)));
}

bool Tokenizer::normalises() const {
    return parts_.normal_form != NormalForm::none || wordpiece_ || parts_.pieces.replaces ||
           parts_.pieces.prepends;
}
std::string Tokenizer::normal_form(std::string_view text) const {
    if (wordpiece_) return wordpiece_->normalize(text);
    std::string out = normalize(text, parts_.normal_form);
    auto& o = parts_.pieces;
    if (o.prepends && !out.empty()) out.insert(0, SPACE_PIECE);
    return o.replaces ? replaced(out, " ", SPACE_PIECE) : out;
}

void Tokenizer::segments(std::string_view text, bool special, std::vector<Segment>& out) const {
    auto with_normalized = [&](std::string_view part) {
        std::shared_ptr<const std::string> owner;
        if (normalises()) {
            owner = std::make_shared<const std::string>(normal_form(part));
            part = *owner;
        }
        size_t done = 0;
        auto plain = [&](size_t end) {
            if (end > done) out.push_back({part.substr(done, end - done), -1, owner});
        };
        if (!normalized_.empty())
            for (auto& m : normalized_.find(part, special)) {
                plain(m.begin);
                out.push_back({{}, m.id, nullptr});
                done = m.end;
            }
        plain(part.size());
    };
    size_t done = 0;
    if (!raw_.empty())
        for (auto& m : raw_.find(text, special)) {
            if (m.begin > done) with_normalized(text.substr(done, m.begin - done));
            out.push_back({{}, m.id, nullptr});
            done = m.end;
        }
    if (done < text.size()) with_normalized(text.substr(done));
    add_spaces_in_front(text, out);
}

// The pre-tokenizers ByteLevel and Metaspace may put one in front of a stretch that does not begin with one.
void Tokenizer::add_spaces_in_front(std::string_view text, std::vector<Segment>& out) const {
    auto& o = parts_.pieces;
    if (!parts_.add_prefix_space && !o.metaspace) return;
    for (size_t i = 0; i < out.size(); i++) {
        Segment& s = out[i];
        if (s.id >= 0) continue;
        bool wanted = parts_.add_prefix_space || o.prefix == PrefixSpace::always ||
                      (o.prefix == PrefixSpace::first && i == 0);
        bool has = s.text[0] == ' ' || (o.metaspace && s.text.starts_with(SPACE_PIECE));
        std::string with = (wanted && !has ? " " : "") + std::string(s.text);
        if (o.metaspace) with = replaced(with, " ", SPACE_PIECE);
        s.owner = std::make_shared<const std::string>(std::move(with));
        s.text = *s.owner;
    }
}

size_t Tokenizer::safe_cut(std::string_view text, size_t from) const {
    if (wordpiece_) return WordPiece::safe_cut(text, from);
    if (piece_bpe_) return piece_bpe_->safe_cut(text, from);
    return parts_.splitter.safe_cut(text, from);
}

void Tokenizer::encode_plain(std::string_view text, std::vector<int>& ids, Scratch& scratch) const {
    if (wordpiece_) return wordpiece_->encode(text, ids);
    if (piece_bpe_) return piece_bpe_->encode(text, ids, scratch.cache);
    scratch.ends.clear();
    parts_.splitter.split(text, scratch.ends);
    size_t begin = 0;
    for (size_t end : scratch.ends) {
        std::string_view chunk = text.substr(begin, end - begin);
        begin = end;
        if (parts_.ignore_merges)
            if (auto at = whole_.find(chunk); at != whole_.end()) {
                ids.push_back(at->second);
                continue;
            }
        bpe_->encode(chunk, ids, scratch.cache);
    }
}

constexpr size_t BLOCK = 1 << 16; // bytes that one task encodes

std::vector<int> Tokenizer::encode(std::string_view text, bool special, bool frame) const {
    if (text.size() > 4 * BLOCK) return encode_batch(std::span(&text, 1), special, frame)[0];
    std::vector<Segment> parts;
    segments(text, special, parts);
    ScratchPool::Lease lease(*pool_);
    std::vector<int> ids;
    if (frame) ids = parts_.prefix;
    for (auto& s : parts) s.id >= 0 ? ids.push_back(s.id) : encode_plain(s.text, ids, *lease.scratch);
    if (frame) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
}

// Documents become segments, segments become blocks where they may be cut, blocks become tasks of about equal
// size.
std::vector<std::vector<int>> Tokenizer::encode_batch(std::span<const std::string_view> texts, bool special,
                                                      bool frame) const {
    auto n = int64_t(texts.size());
    std::vector<std::vector<Segment>> parts(texts.size());
    parallel_for(n, 16, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) segments(texts[size_t(i)], special, parts[size_t(i)]);
    });
    struct Task {
        size_t document, first, last; // segments [first, last) of the document
        std::vector<int> ids;
    };
    std::vector<Task> tasks;
    std::vector<size_t> groups{0}; // tasks [groups[i], groups[i+1]) are about BLOCK bytes
    size_t bytes = 0;
    for (size_t d = 0; d < texts.size(); d++) {
        std::vector<Segment> cut;
        for (auto& s : parts[d])
            for (size_t at = 0; at < s.text.size() || (s.id >= 0 && !at);) {
                size_t end = s.id >= 0 ? 1 : safe_cut(s.text, at + BLOCK);
                cut.push_back({s.id >= 0 ? s.text : s.text.substr(at, end - at), s.id, s.owner});
                at = end;
            }
        parts[d] = std::move(cut);
        for (size_t i = 0; i < parts[d].size();) {
            Task task{d, i, i, {}};
            for (; task.last < parts[d].size() && bytes < BLOCK; task.last++)
                bytes += parts[d][task.last].text.size() + 1;
            i = task.last;
            tasks.push_back(std::move(task));
            if (bytes >= BLOCK) groups.push_back(tasks.size()), bytes = 0;
        }
    }
    if (groups.back() != tasks.size()) groups.push_back(tasks.size());
    parallel_for(int64_t(groups.size()) - 1, 1, [&](int64_t begin, int64_t end) {
        ScratchPool::Lease lease(*pool_);
        for (size_t t = groups[size_t(begin)]; t < groups[size_t(end)]; t++)
            for (size_t i = tasks[t].first; i < tasks[t].last; i++) {
                auto& s = parts[tasks[t].document][i];
                s.id >= 0 ? tasks[t].ids.push_back(s.id) : encode_plain(s.text, tasks[t].ids, *lease.scratch);
            }
    });
    std::vector<std::vector<int>> ids(texts.size());
    if (frame)
        for (auto& v : ids) v = parts_.prefix;
    for (auto& t : tasks) {
        auto& out = ids[t.document];
        if (out.empty())
            out = std::move(t.ids);
        else
            out.insert(out.end(), t.ids.begin(), t.ids.end());
    }
    if (frame)
        for (auto& v : ids) v.insert(v.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
}

std::string Tokenizer::decode(std::span<const int> ids, bool skip_special) const {
    std::string text;
    for (int id : ids)
        if (auto p = piece(id); !skip_special || !special_[size_t(id)]) text += p;
    bool drops = wordpiece_ || parts_.pieces.drops_first_space;
    if (drops && text.starts_with(' ')) text.erase(0, 1);
    return text;
}

static void check_id(int id, int size) {
    check(id >= 0 && id < size, "tokenizer: expected an id from 0 to %d, found %d", size - 1, id);
}
std::string_view Tokenizer::piece(int id) const { return check_id(id, size()), pieces_[size_t(id)]; }
bool Tokenizer::is_special(int id) const { return check_id(id, size()), special_[size_t(id)]; }
int Tokenizer::bytes_of(int id) const {
    return check_id(id, size()), special_[size_t(id)] ? 0 : int(pieces_[size_t(id)].size());
}
int Tokenizer::find(std::string_view content) const {
    auto at = by_content_.find(content);
    return at == by_content_.end() ? -1 : at->second;
}
int Tokenizer::special(std::string_view content) const {
    int id = find(content);
    check(id >= 0, "%s: the vocabulary has no token '%.*s', which is needed here", parts_.source.c_str(),
          int(content.size()), content.data());
    return id;
}

std::string StreamDecoder::push(int id) {
    auto piece = tokenizer_->piece(id);
    if (skip_special_ && tokenizer_->is_special(id)) piece = {};
    held_ += piece;
    size_t n = utf8_complete(held_);
    std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, n));
    held_.erase(0, n);
    return text;
}
std::string StreamDecoder::finish() {
    std::string text = replace_invalid_utf8(held_);
    held_.clear();
    return text;
}

} // namespace nvl
