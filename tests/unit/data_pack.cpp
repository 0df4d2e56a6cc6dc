// data/pack: shards that notice any damage, packing that loses nothing, batches as a function of one integer.
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>

#include "data/pack/dataset.h"
#include "data/pack/prepare.h"
#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/io/file.h"

using namespace nvl;
namespace fs = std::filesystem;

namespace {
struct Folder {
    std::string path = (fs::temp_directory_path() / ("nvl_pack_" + std::to_string(getpid()))).string();
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
};
/// Without the fsync of write_file: these tests write hundreds of files.
void overwrite(const std::string& path, std::string_view content) {
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(content.data(), long(content.size()));
}
/// Sets the number of threads for one test.
struct Threads {
    int before = threads();
    ~Threads() { set_threads(before); }
};
TokenizerId toy(int64_t vocabulary = 1000) { return {std::string(64, 'a'), vocabulary}; }

/// Documents whose tokens are all different: token = running number.
std::vector<std::vector<int32_t>> numbered(const std::vector<int>& lengths) {
    std::vector<std::vector<int32_t>> documents;
    int32_t next = 1;
    for (int n : lengths) {
        documents.emplace_back();
        for (int i = 0; i < n; i++) documents.back().push_back(next++);
    }
    return documents;
}
std::string write_numbered(const Folder& f, const std::string& name, const std::vector<int>& lengths,
                           int64_t vocabulary) {
    ShardWriter writer(toy(vocabulary));
    for (auto& d : numbered(lengths)) writer.add(d);
    writer.write(f.path + "/" + name);
    return f.path + "/" + name;
}
std::vector<int> random_lengths(int n, int longest, uint64_t seed) {
    std::vector<int> lengths;
    Random random(seed, "lengths");
    for (int i = 0; i < n; i++) lengths.push_back(1 + int(random.below(uint64_t(i), uint64_t(longest))));
    return lengths;
}
std::string error_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}
} // namespace

TEST(Shards, RoundTripNarrowWideAndMasked) {
    Folder f;
    for (int64_t vocabulary : {1000l, 65536l, 65537l, 200000l})
        for (bool masked : {false, true}) {
            ShardWriter writer(toy(vocabulary));
            std::vector<int32_t> a = {0, 5, int32_t(vocabulary - 1)}, b = {7};
            std::vector<uint8_t> ma = {0, 1, 1}, mb = {0};
            writer.add(a, masked ? ma : std::vector<uint8_t>{});
            writer.add(b, masked ? mb : std::vector<uint8_t>{});
            EXPECT_THROW(writer.add(b, masked ? std::vector<uint8_t>{} : mb), Error);
            EXPECT_THROW(writer.add({}), Error);
            EXPECT_THROW(writer.add(std::vector<int32_t>{int32_t(vocabulary)}), Error);
            EXPECT_THROW(writer.add(std::vector<int32_t>{-1}), Error);
            std::string path = f.path + "/x.shard";
            writer.write(path);
            Shard shard(path, toy(vocabulary));
            ASSERT_EQ(shard.documents(), 2);
            ASSERT_EQ(shard.tokens(), 4);
            EXPECT_EQ(shard.token(2), vocabulary - 1);
            EXPECT_EQ(shard.document_begin(1), 3);
            EXPECT_EQ(shard.document_end(1), 4);
            EXPECT_EQ(shard.learned(0), !masked);
            EXPECT_EQ(fs::file_size(path), 128u + 16 + 4 * (vocabulary <= 65536 ? 2 : 4) + (masked ? 4 : 0));
        }
}

TEST(Shards, EveryDamagedByteIsNoticed) {
    Folder f;
    std::string path = write_numbered(f, "a.shard", {10, 20, 3}, 1000), whole = read_file(path);
    for (size_t i = 0; i < whole.size(); i++)
        for (int bit : {0, 3, 7}) {
            std::string damaged = whole;
            damaged[i] = char(damaged[i] ^ 1 << bit);
            overwrite(f.path + "/b.shard", damaged);
            std::string error = error_of([&] { Shard(f.path + "/b.shard", toy()); });
            ASSERT_EQ(error.find(f.path), 0u) << "byte " << i << " bit " << bit << ": " << error;
            ASSERT_EQ(error.find('\n'), error.npos);
        }
    for (size_t n = 0; n < whole.size(); n++) {
        overwrite(f.path + "/b.shard", whole.substr(0, n));
        ASSERT_THROW(Shard(f.path + "/b.shard", toy()), Error) << n;
    }
    overwrite(f.path + "/b.shard", whole + "x");
    EXPECT_NE(error_of([&] { Shard(f.path + "/b.shard", toy()); }).find("truncated or damaged"),
              std::string::npos);
    EXPECT_THROW(Shard(f.path + "/none.shard", toy()), Error);
    EXPECT_THROW(Shard(f.path, toy()), Error);
}

TEST(Shards, AnotherTokenizerIsRefused) {
    Folder f;
    std::string path = write_numbered(f, "a.shard", {10}, 1000);
    EXPECT_NE(error_of([&] {
                  Shard(path, {std::string(64, 'b'), 1000});
              }).find("made with tokenizer aaaaaaaaaaaa"),
              std::string::npos);
    EXPECT_NE(error_of([&] { Shard(path, toy(999)); }).find("vocabulary of 1000"), std::string::npos);
    EXPECT_THROW(Shard(path, {"short", 1000}), Error);
}

TEST(Shards, NothingIsLeftWhenWritingFails) {
    Folder f;
    EXPECT_THROW(ShardWriter(toy()).write(f.path + "/empty.shard"), Error);
    ShardWriter writer(toy());
    writer.add(std::vector<int32_t>{1, 2});
    EXPECT_THROW(writer.write(f.path + "/no/such/folder.shard"), Error);
    EXPECT_TRUE(fs::is_empty(f.path));
}

TEST(Shards, WritingDoesNotDependOnThreads) {
    Threads restore;
    Folder f;
    std::vector<std::string> texts;
    for (int i = 0; i < 5000; i++) texts.push_back("text " + std::to_string(i * 7919));
    Encode encode = [](std::string_view s) { return std::vector<int32_t>(s.begin(), s.end()); };
    std::vector<std::string> content[2];
    for (int t : {1, 3}) {
        set_threads(t);
        std::string folder = f.path + "/" + std::to_string(t);
        auto paths = write_shards(folder, "train", texts, encode, toy(),
                                  {.begin = 300, .end = 301, .tokens_per_shard = 20000});
        EXPECT_GT(paths.size(), 2u);
        EXPECT_EQ(paths, find_shards(folder, "train"));
        for (auto& p : paths) content[t == 3].push_back(read_file(p));
        Shard first(paths[0], toy());
        EXPECT_EQ(first.token(0), 300);
        EXPECT_EQ(first.token(first.document_end(0) - 1), 301);
        EXPECT_EQ(first.document_end(0), 2 + 6);
    }
    EXPECT_EQ(content[0], content[1]);
    EXPECT_THROW(find_shards(f.path, "val"), Error);
    EXPECT_THROW(write_shards(f.path, "x", {}, encode, toy()), Error);
}

TEST(Packing, EveryTokenOnceAndRowsNeverOverflow) {
    for (int64_t T : {2l, 7l, 64l, 1000l})
        for (auto policy : {LongDocuments::cut, LongDocuments::crop}) {
            std::vector<DocumentSpan> documents;
            int64_t total = 0;
            for (int n : random_lengths(500, 200, uint64_t(T))) {
                documents.push_back({total, n, 0});
                total += n;
            }
            PackedRows rows = pack(documents, T, policy);
            std::vector<int> seen(size_t(total), 0);
            int64_t tokens = 0;
            std::array<int64_t, 2> least = {T, T}; // the emptiest two rows
            for (int64_t r = 0; r < rows.rows(); r++) {
                int64_t used = 0;
                for (int64_t p = rows.row_starts[size_t(r)]; p < rows.row_starts[size_t(r) + 1]; p++) {
                    const Piece& piece = rows.pieces[size_t(p)];
                    for (int64_t i = 0; i < piece.length; i++) seen[size_t(piece.begin + i)]++;
                    used += piece.length;
                }
                ASSERT_LE(used, T);
                ASSERT_GT(used, 0);
                tokens += used;
                if (used < least[1]) least[1] = used;
                if (least[1] < least[0]) std::swap(least[0], least[1]);
            }
            EXPECT_EQ(tokens, rows.tokens);
            EXPECT_EQ(rows.tokens + rows.cropped, total);
            for (int64_t d = 0; d < int64_t(documents.size()); d++)
                for (int64_t i = 0; i < documents[size_t(d)].length; i++)
                    ASSERT_EQ(seen[size_t(documents[size_t(d)].begin + i)],
                              policy == LongDocuments::cut || i < T);
            // any fit: a row was opened only when a piece fitted nowhere, so no two rows fit into one
            EXPECT_GT(least[0] + least[1], T);
            EXPECT_NEAR(rows.padding(), 1 - double(tokens) / double(rows.rows() * T), 1e-12);
        }
    // 1000 documents of up to 200 in rows of 1000: nearly full
    std::vector<DocumentSpan> documents;
    for (int n : random_lengths(1000, 200, 5)) documents.push_back({0, n, 0});
    EXPECT_LT(pack(documents, 1000).padding(), 0.01);
    EXPECT_NE(pack(documents, 1000).report().find("% padding, 0 tokens cropped"), std::string::npos);
    EXPECT_THROW(pack({{0, 0, 0}}, 8), Error);
    EXPECT_THROW(pack({{0, 1, 0}}, 1), Error);
}

TEST(Packing, BestFitTakesTheFullestRow) {
    // Longest first: 7; 5 (new row); 3 goes to the row with exactly 3 free, 2 and 3 fill the other.
    std::vector<DocumentSpan> documents = {{0, 3, 0}, {3, 5, 0}, {8, 7, 0}, {15, 2, 0}, {17, 3, 0}};
    PackedRows rows = pack(documents, 10);
    ASSERT_EQ(rows.rows(), 2);
    EXPECT_EQ(rows.padding(), 0);
    EXPECT_EQ(rows.pieces[0].begin, 8);
    EXPECT_EQ(rows.pieces[1].begin, 0);
}

// Documents are numbered 1..n without a gap, so a token names its place: the label of token t is t + 1 inside
// a document and -1 at its end.
TEST(Dataset, LabelsStayInsideDocuments) {
    Folder f;
    std::vector<int> lengths = random_lengths(200, 90, 11);
    int total = std::accumulate(lengths.begin(), lengths.end(), 0);
    std::string path = write_numbered(f, "a.shard", lengths, total + 1);
    PackedDataset data({path}, toy(total + 1), 64, 3);
    std::map<int, int> last; // token -> 1 at the end of its document
    for (int i = 0, at = 0; i < int(lengths.size()); i++) last[at += lengths[size_t(i)]] = 1;
    TokenBatch b = data.batch(0, data.rows());
    std::vector<int> seen(size_t(total) + 1, 0);
    int64_t valid = 0;
    for (size_t i = 0; i < b.tokens.size(); i++) {
        int t = b.tokens[i];
        seen[size_t(t)]++;
        EXPECT_EQ(b.labels[i], t == 0 || last.count(t) ? -1 : t + 1);
        valid += b.labels[i] >= 0;
    }
    for (int t = 1; t <= total; t++) EXPECT_EQ(seen[size_t(t)], 1);
    EXPECT_EQ(b.valid, valid);
    EXPECT_EQ(valid, total - int(lengths.size())); // also at the seams of documents that were cut
    // sequences: positions count from 0 inside each, and no sequence holds two documents or crosses a row
    ASSERT_EQ(b.sequence_starts.front(), 0);
    ASSERT_EQ(b.sequence_starts.back(), int32_t(b.tokens.size()));
    for (size_t s = 0; s + 1 < b.sequence_starts.size(); s++) {
        int begin = b.sequence_starts[s], end = b.sequence_starts[s + 1];
        ASSERT_LT(begin, end);
        EXPECT_EQ(begin / 64, (end - 1) / 64);
        for (int i = begin; i < end; i++) {
            EXPECT_EQ(b.positions[size_t(i)], i - begin);
            int first = b.tokens[size_t(begin)], expected = first == 0 ? 0 : first + i - begin;
            EXPECT_EQ(b.tokens[size_t(i)], expected);
            if (i + 1 < end && first) {
                EXPECT_EQ(last.count(b.tokens[size_t(i)]), 0u);
            }
        }
    }
    EXPECT_LE(int64_t(b.sequence_starts.size()), data.rows() * data.max_sequences_per_row() + 1);
}

TEST(Dataset, OneIntegerIsTheState) {
    Folder f;
    std::vector<std::string> paths = {write_numbered(f, "a.shard", random_lengths(100, 60, 1), 20000),
                                      write_numbered(f, "b.shard", random_lengths(100, 60, 2), 20000)};
    PackedDataset data(paths, toy(20000), 32, 5), again(paths, toy(20000), 32, 5),
        other(paths, toy(20000), 32, 6);
    int64_t n = data.rows(), all = 2 * n + 3; // over two epochs
    TokenBatch whole = data.batch(0, all);
    for (int64_t step : {1, 2, 5}) { // any split into batches, resumed in a new object at each
        std::vector<int32_t> tokens, labels;
        int64_t valid = 0;
        for (int64_t r = 0; r < all; r += step) {
            TokenBatch b = again.batch(r, std::min(step, all - r));
            tokens.insert(tokens.end(), b.tokens.begin(), b.tokens.end());
            labels.insert(labels.end(), b.labels.begin(), b.labels.end());
            EXPECT_EQ(b.valid, again.valid(r, std::min(step, all - r)));
            valid += b.valid;
        }
        EXPECT_EQ(tokens, whole.tokens);
        EXPECT_EQ(labels, whole.labels);
        EXPECT_EQ(valid, whole.valid);
    }
    EXPECT_NE(other.batch(0, n).tokens, data.batch(0, n).tokens);
    EXPECT_NE(data.batch(0, n).tokens, data.batch(n, n).tokens); // epochs differ in order
    auto sorted = [](std::vector<int32_t> v) {
        std::sort(v.begin(), v.end());
        return v;
    };
    EXPECT_EQ(sorted(data.batch(0, n).tokens), sorted(data.batch(n, n).tokens)); // but not in content
    EXPECT_EQ(sorted(data.ordered(0, n).tokens), sorted(data.batch(0, n).tokens));
    EXPECT_THROW(data.ordered(0, n + 1), Error);
    EXPECT_THROW(data.batch(-1, 1), Error);
    EXPECT_THROW(data.batch(0, 0), Error);
}

TEST(Dataset, MaskedTokensAreNotLearned) {
    Folder f;
    ShardWriter writer(toy());
    writer.add(std::vector<int32_t>{10, 11, 12, 13, 14, 15}, std::vector<uint8_t>{0, 0, 1, 0, 1, 1});
    writer.write(f.path + "/a.shard");
    PackedDataset data({f.path + "/a.shard"}, toy(), 8, 0,
                       {.long_documents = LongDocuments::crop, .padding_id = 9});
    TokenBatch b = data.batch(0, 1);
    EXPECT_EQ(b.tokens, (std::vector<int32_t>{10, 11, 12, 13, 14, 15, 9, 9}));
    EXPECT_EQ(b.labels, (std::vector<int32_t>{-1, 12, -1, 14, 15, -1, -1, -1}));
    EXPECT_EQ(b.positions, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 0, 1}));
    EXPECT_EQ(b.sequence_starts, (std::vector<int32_t>{0, 6, 8}));
    EXPECT_EQ(b.valid, 3);
    ShardWriter silent(toy());
    silent.add(std::vector<int32_t>{1, 2}, std::vector<uint8_t>{1, 0});
    silent.write(f.path + "/b.shard");
    EXPECT_NE(error_of([&] { PackedDataset({f.path + "/b.shard"}, toy(), 8, 0); }).find("nothing to learn"),
              std::string::npos);
}

TEST(Prepare, OnceForTheSameTextAndAgainForAnother) {
    Folder f;
    std::string text = f.path + "/text", out = f.path + "/out";
    fs::create_directories(text);
    std::string lines;
    for (int i = 0; i < 300; i++) lines += "{\"text\": \"document number " + std::to_string(i) + "\"}\n";
    overwrite(text + "/a.jsonl", lines);
    int calls = 0;
    Encode encode = [&](std::string_view s) {
        calls++;
        return std::vector<int32_t>(s.begin(), s.end());
    };
    Threads restore;
    set_threads(1);
    PrepareOptions options{.validation_fraction = 0.2, .shards = {.begin = 256, .tokens_per_shard = 2000}};
    PreparedCorpus first = prepare_corpus({text}, out, encode, toy(), options);
    EXPECT_FALSE(first.reused);
    EXPECT_EQ(calls, 300);
    EXPECT_EQ(first.train.documents + first.validation.documents, 300);
    EXPECT_NEAR(double(first.validation.documents), 60, 25);
    EXPECT_GT(first.train.shards.size(), 1u);
    EXPECT_EQ(first.train.tokens, first.train.bytes + first.train.documents);
    EXPECT_EQ(find_shards(out, "validation"), first.validation.shards);

    PreparedCorpus second = prepare_corpus({text}, out, encode, toy(), options);
    EXPECT_TRUE(second.reused);
    EXPECT_EQ(calls, 300);
    EXPECT_EQ(second.train.shards, first.train.shards);
    EXPECT_EQ(second.train.tokens, first.train.tokens);
    EXPECT_EQ(second.validation.bytes, first.validation.bytes);

    options.seed = 1; // another split
    EXPECT_FALSE(prepare_corpus({text}, out, encode, toy(), options).reused);
    overwrite(text + "/a.jsonl",
              lines.substr(0, lines.size() / 2 + lines.substr(lines.size() / 2).find('\n') + 1));
    PreparedCorpus less = prepare_corpus({text}, out, encode, toy(), options);
    EXPECT_FALSE(less.reused);
    EXPECT_EQ(find_shards(out, "train"), less.train.shards); // no shard of the larger corpus is left
    fs::remove(less.train.shards[0]);
    EXPECT_FALSE(prepare_corpus({text}, out, encode, toy(), options).reused);
    overwrite(out + "/corpus.json", "{\"key\": 5}");
    EXPECT_FALSE(prepare_corpus({text}, out, encode, toy(), options).reused);

    overwrite(text + "/b.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    EXPECT_NE(error_of([&] {
                  prepare_corpus({text}, out, encode, toy(), options);
              }).find("b.jsonl:1: a conversation"),
              std::string::npos);
}
