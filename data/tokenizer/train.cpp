#include "data/tokenizer/train.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "engine/base/text.h"

namespace nvl {

const std::vector<std::string>& conversation_specials() {
    static const std::vector<std::string> names = {
        "<|bos|>",           "<|user_start|>",   "<|user_end|>",    "<|assistant_start|>",
        "<|assistant_end|>", "<|python_start|>", "<|python_end|>",  "<|output_start|>",
        "<|output_end|>",    "<|image|>",        "<|image_start|>", "<|image_end|>",
        "<|video|>",         "<|reserved_0|>",   "<|reserved_1|>",  "<|reserved_2|>"};
    return names;
}

// Chunk -> how often: open addressing over chunks kept one after the other.
class BpeTrainer::Counts {
public:
    struct Item {
        uint64_t hash = 0, at = 0; // first byte in text_
        uint32_t size = 0;         // 0: empty slot
        int64_t count = 0;
    };
    void add(std::string_view chunk, int64_t count) { add(chunk, count, hash_of(chunk)); }
    void add(std::string_view chunk, int64_t count, uint64_t hash) {
        if (2 * (used_ + 1) > items_.size()) grow();
        Item& item = slot(hash, chunk);
        if (!item.size) {
            item = {hash, text_.size(), uint32_t(chunk.size()), 0};
            text_ += chunk;
            used_++;
        }
        item.count += count;
    }
    size_t size() const { return used_; }
    template <class F> void each(F visit) const {
        for (auto& i : items_)
            if (i.size) visit(std::string_view(text_).substr(i.at, i.size), i.count, i.hash);
    }

private:
    static uint64_t hash_of(std::string_view s) {
        uint64_t h = s.size() * 0x9E3779B97F4A7C15ull, word;
        while (s.size() >= 8) {
            std::memcpy(&word, s.data(), 8);
            h = std::rotl((h ^ word) * 0xD6E8FEB86659FD93ull, 29);
            s.remove_prefix(8);
        }
        word = 0;
        std::memcpy(&word, s.data(), s.size());
        h = (h ^ word) * 0xD6E8FEB86659FD93ull;
        return (h ^ h >> 32) * 0x9E3779B97F4A7C15ull;
    }
    Item& slot(uint64_t hash, std::string_view chunk) {
        for (size_t i = hash >> shift_;; i = (i + 1) & (items_.size() - 1)) {
            Item& item = items_[i];
            if (!item.size ||
                (item.hash == hash && std::string_view(text_).substr(item.at, item.size) == chunk))
                return item;
        }
    }
    void grow() {
        std::vector<Item> old(std::max<size_t>(1024, 2 * items_.size()));
        old.swap(items_);
        shift_ = 64 - std::countr_zero(items_.size());
        for (auto& item : old) {
            if (!item.size) continue;
            size_t i = item.hash >> shift_;
            while (items_[i].size) i = (i + 1) & (items_.size() - 1);
            items_[i] = item;
        }
    }
    std::vector<Item> items_;
    std::string text_;
    size_t used_ = 0;
    int shift_ = 0;
};

// The words as lists of ids, the pairs in them with their counts and the words they stand in, and a heap of
// pairs whose counts may be out of date (too high): they are looked at again when they come up.
class BpeTrainer::Merger {
public:
    explicit Merger(const Counts& counts);
    /// The most frequent pair, the smaller one on ties; false when none reaches min_count.
    bool best(int64_t min_count, uint64_t& pair);
    /// Replaces the pair by `result` in every word.
    void merge(uint64_t pair, uint32_t result);

private:
    struct Word {
        size_t begin;
        uint32_t size;
        int64_t count;
    };
    struct Pair {
        uint64_t key;
        int64_t count = 0;
        std::vector<uint32_t> words; // in which it stands, or stood
        bool grew = false;
    };
    struct Candidate {
        int64_t count;
        uint64_t key;
        uint32_t index;
        bool operator<(const Candidate& o) const { return count != o.count ? count < o.count : key > o.key; }
    };
    static uint64_t key_of(uint32_t a, uint32_t b) { return uint64_t(a) << 32 | b; }
    uint32_t index_of(uint64_t key);
    void grow();
    void gain(uint64_t key, uint32_t word);
    void lose(uint64_t key, uint32_t word) { pairs_[index_of(key)].count -= words_[word].count; }

    std::vector<uint32_t> symbols_;
    std::vector<Word> words_;
    std::vector<Pair> pairs_;
    std::vector<uint32_t> table_; // key -> index in pairs_ + 1, open addressing
    int shift_ = 64;
    std::vector<uint32_t> grown_;
    std::priority_queue<Candidate> heap_;
};

BpeTrainer::Merger::Merger(const Counts& counts) {
    uint32_t id_of[256];
    for (uint32_t i = 0; i < 256; i++) id_of[bytes_by_letter()[i]] = i;
    words_.reserve(counts.size());
    counts.each([&](std::string_view chunk, int64_t count, uint64_t) {
        words_.push_back({symbols_.size(), uint32_t(chunk.size()), count});
        for (char c : chunk) symbols_.push_back(id_of[uint8_t(c)]);
    });
    for (uint32_t w = 0; w < words_.size(); w++)
        for (uint32_t i = 1; i < words_[w].size; i++)
            gain(key_of(symbols_[words_[w].begin + i - 1], symbols_[words_[w].begin + i]), w);
    for (uint32_t i : grown_) heap_.push({pairs_[i].count, pairs_[i].key, i}), pairs_[i].grew = false;
    grown_.clear();
}

uint32_t BpeTrainer::Merger::index_of(uint64_t key) {
    if (2 * (pairs_.size() + 1) > table_.size()) grow();
    for (size_t i = key * 0x9E3779B97F4A7C15ull >> shift_;; i = (i + 1) & (table_.size() - 1)) {
        if (!table_[i]) {
            pairs_.push_back({key});
            return (table_[i] = uint32_t(pairs_.size())) - 1;
        }
        if (pairs_[table_[i] - 1].key == key) return table_[i] - 1;
    }
}
void BpeTrainer::Merger::grow() {
    table_.assign(std::max<size_t>(4096, 2 * table_.size()), 0);
    shift_ = 64 - std::countr_zero(table_.size());
    for (uint32_t p = 0; p < pairs_.size(); p++) {
        size_t i = pairs_[p].key * 0x9E3779B97F4A7C15ull >> shift_;
        while (table_[i]) i = (i + 1) & (table_.size() - 1);
        table_[i] = p + 1;
    }
}
void BpeTrainer::Merger::gain(uint64_t key, uint32_t word) {
    uint32_t index = index_of(key);
    Pair& p = pairs_[index];
    p.count += words_[word].count;
    if (p.words.empty() || p.words.back() != word) p.words.push_back(word);
    if (!p.grew) p.grew = true, grown_.push_back(index);
}

bool BpeTrainer::Merger::best(int64_t min_count, uint64_t& pair) {
    while (!heap_.empty()) {
        Candidate top = heap_.top();
        int64_t now = pairs_[top.index].count;
        if (now == top.count) return pair = top.key, now >= min_count;
        heap_.pop();
        if (now > 0) heap_.push({now, top.key, top.index});
    }
    return false;
}

void BpeTrainer::Merger::merge(uint64_t pair, uint32_t result) {
    const auto left = uint32_t(pair >> 32), right = uint32_t(pair);
    uint32_t index = index_of(pair);
    std::vector<uint32_t> where = std::move(pairs_[index].words);
    pairs_[index].words = {};
    for (uint32_t w : where) {
        uint32_t* s = &symbols_[words_[w].begin];
        uint32_t n = words_[w].size, out = 0;
        for (uint32_t i = 0; i < n; out++) {
            if (s[i] != left || i + 1 == n || s[i + 1] != right) {
                s[out] = s[i++];
                continue;
            }
            if (out) lose(key_of(s[out - 1], left), w), gain(key_of(s[out - 1], result), w);
            if (i + 2 < n) lose(key_of(right, s[i + 2]), w), gain(key_of(result, s[i + 2]), w);
            s[out] = result;
            i += 2;
        }
        words_[w].size = out;
    }
    pairs_[index].count = 0;
    for (uint32_t i : grown_) {
        pairs_[i].grew = false;
        if (pairs_[i].count > 0) heap_.push({pairs_[i].count, pairs_[i].key, i});
    }
    grown_.clear();
}

BpeTrainer::BpeTrainer(TrainOptions options)
    : options_(std::move(options)), splitter_(Splitter::named(options_.pattern)) {
    int least = 256 + int(options_.specials.size());
    check(options_.vocabulary_size >= least,
          "tokenizer: expected a vocabulary of at least %d (256 bytes and %zu special tokens), found %d",
          least, options_.specials.size(), options_.vocabulary_size);
    check(options_.vocabulary_size <= 1 << 24,
          "tokenizer: expected a vocabulary of at most 16777216, found %d", options_.vocabulary_size);
}
BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add(std::span<const std::string_view> documents) {
    std::vector<std::string_view> blocks;
    for (auto d : documents) {
        bytes_ += int64_t(d.size());
        for (size_t at = 0, end; at < d.size(); at = end) {
            end = splitter_.safe_cut(d, at + (1 << 16));
            blocks.push_back(d.substr(at, end - at));
        }
    }
    if (counts_.size() < size_t(threads())) counts_.resize(size_t(threads()));
    parallel_for(int64_t(blocks.size()), 1, [&](int thread, int64_t first, int64_t last) {
        std::vector<uint32_t> ends;
        for (int64_t b = first; b < last; b++) {
            std::string_view text = blocks[size_t(b)];
            ends.clear();
            splitter_.split(text, ends);
            size_t begin = 0;
            for (size_t end : ends) {
                counts_[size_t(thread)].add(text.substr(begin, end - begin), 1);
                begin = end;
            }
        }
    });
}

Tokenizer BpeTrainer::train() {
    check(bytes_ > 0, "tokenizer: the corpus is empty: nothing to train on");
    Counts all;
    for (auto& c : counts_)
        c.each([&](std::string_view chunk, int64_t n, uint64_t hash) { all.add(chunk, n, hash); });
    counts_.clear();
    bytes_ = 0;

    TokenizerParts parts;
    for (int i = 0; i < 256; i++)
        parts.vocabulary.push_back(to_letters(std::string(1, char(bytes_by_letter()[i]))));
    std::unordered_map<std::string, int> id_of;
    for (int i = 0; i < 256; i++) id_of[parts.vocabulary[size_t(i)]] = i;
    int total = options_.vocabulary_size - int(options_.specials.size());
    Merger merger(all);
    uint64_t pair;
    std::unordered_map<uint64_t, size_t> rank_of;
    while (int(parts.vocabulary.size()) < total && merger.best(options_.min_count, pair)) {
        auto left = int(pair >> 32), right = int(uint32_t(pair));
        // Two ways may lead to the same piece ("aa"+"a" and "a"+"aa"): it keeps its first id.
        std::string piece = parts.vocabulary[size_t(left)] + parts.vocabulary[size_t(right)];
        auto [at, fresh] = id_of.emplace(piece, int(parts.vocabulary.size()));
        if (fresh) parts.vocabulary.push_back(piece);
        rank_of[pair] = parts.merges.size(); // a pair that comes up again takes its later rank
        parts.merges.emplace_back(left, right);
        merger.merge(pair, uint32_t(at->second));
        if (options_.progress && (parts.vocabulary.size() % size_t(std::max(1, total / 100)) == 0))
            options_.progress(int(parts.vocabulary.size()), total);
    }
    size_t rank = 0;
    std::erase_if(parts.merges,
                  [&](auto& m) { return rank_of[uint64_t(m.first) << 32 | uint32_t(m.second)] != rank++; });
    auto filled = int(parts.vocabulary.size());
    check(filled == total,
          "tokenizer: the corpus has pairs for a vocabulary of %d only, asked for %d: give it more text or a "
          "smaller --vocab-size",
          filled + int(options_.specials.size()), options_.vocabulary_size);
    parts.splitter = splitter_;
    for (size_t i = 0; i < options_.specials.size(); i++)
        parts.added.push_back({.id = total + int(i), .content = options_.specials[i]});
    auto has = [&](const char* name) { return std::ranges::count(options_.specials, name) > 0; };
    if (has("<|bos|>"))
        parts.bos = "<|bos|>", parts.prefix = {total + int(std::ranges::find(options_.specials, "<|bos|>") -
                                                           options_.specials.begin())};
    if (has("<|assistant_end|>")) parts.eos = "<|assistant_end|>";
    return Tokenizer(std::move(parts));
}

} // namespace nvl
