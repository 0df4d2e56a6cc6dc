#include "data/pack/dataset.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/rng.h"

namespace nvl {

PackedDataset::PackedDataset(const std::vector<std::string>& shard_paths, const TokenizerId& tokenizer,
                             int64_t row_length, uint64_t seed, const DatasetOptions& options)
    : seed_(seed), options_(options) {
    check(!shard_paths.empty(), "dataset: no shards were given");
    check(options.padding_id >= 0 && options.padding_id < tokenizer.vocabulary,
          "dataset: padding id %d is outside of the vocabulary of %ld", options.padding_id,
          long(tokenizer.vocabulary));
    std::vector<DocumentSpan> documents;
    for (const std::string& path : shard_paths) {
        shards_.push_back(std::make_unique<Shard>(path, tokenizer));
        const Shard& s = *shards_.back();
        for (int64_t i = 0; i < s.documents(); i++)
            documents.push_back(
                {s.document_begin(i), s.document_end(i) - s.document_begin(i), int32_t(shards_.size() - 1)});
    }
    packed_ = pack(documents, row_length, options.long_documents);
    int64_t all = 0;
    for (int64_t r = 0; r < rows(); r++) {
        int64_t n = 0, used = 0, begin = packed_.row_starts[size_t(r)],
                end = packed_.row_starts[size_t(r) + 1];
        for (int64_t p = begin; p < end; p++) {
            const Piece& piece = packed_.pieces[size_t(p)];
            for (int32_t i = 0; i < piece.length; i++) n += label(piece, i) >= 0;
            used += piece.length;
        }
        valid_.push_back(int32_t(n));
        max_sequences_ = std::max(max_sequences_, end - begin + (used < row_length));
        all += n;
    }
    check(all > 0, "%s: nothing to learn: no token has a successor that is not masked",
          shard_paths[0].c_str());
}

int32_t PackedDataset::label(const Piece& piece, int32_t i) const {
    if (i + 1 == piece.length && !piece.continues) return -1;
    // A document cut at the row's end still says what comes next. A cropped one does too: the token is known.
    const Shard& shard = *shards_[size_t(piece.shard)];
    int64_t next = piece.begin + i + 1;
    return shard.learned(next) ? shard.token(next) : -1;
}

int64_t PackedDataset::packed_row(int64_t run_row) const {
    check(run_row >= 0, "dataset: row %ld", long(run_row));
    auto epoch = uint64_t(run_row / rows());
    return int64_t(permuted(uint64_t(run_row % rows()), uint64_t(rows()), seed_ + epoch));
}

void PackedDataset::append(int64_t row, TokenBatch& batch) const {
    int64_t T = row_length();
    auto base = int32_t(batch.tokens.size());
    int32_t used = 0;
    for (int64_t p = packed_.row_starts[size_t(row)]; p < packed_.row_starts[size_t(row) + 1]; p++) {
        const Piece& piece = packed_.pieces[size_t(p)];
        batch.sequence_starts.push_back(base + used);
        for (int32_t i = 0; i < piece.length; i++) {
            batch.tokens.push_back(shards_[size_t(piece.shard)]->token(piece.begin + i));
            batch.labels.push_back(label(piece, i));
            batch.positions.push_back(i);
        }
        used += piece.length;
    }
    if (used < T) batch.sequence_starts.push_back(base + used);
    for (int32_t i = 0; used < T; i++, used++) {
        batch.tokens.push_back(options_.padding_id);
        batch.labels.push_back(-1);
        batch.positions.push_back(i);
    }
    batch.valid += valid_[size_t(row)];
}

TokenBatch PackedDataset::batch(int64_t first_row, int64_t count) const {
    check(count > 0 && count * row_length() <= INT32_MAX, "dataset: a batch of %ld rows", long(count));
    TokenBatch out;
    for (int64_t r = 0; r < count; r++) append(packed_row(first_row + r), out);
    out.sequence_starts.push_back(int32_t(out.tokens.size()));
    return out;
}
int64_t PackedDataset::valid(int64_t first_row, int64_t count) const {
    int64_t n = 0;
    for (int64_t r = 0; r < count; r++) n += valid_[size_t(packed_row(first_row + r))];
    return n;
}
TokenBatch PackedDataset::ordered(int64_t first, int64_t count) const {
    check(first >= 0 && count > 0 && first + count <= rows() && count * row_length() <= INT32_MAX,
          "dataset: rows %ld..%ld of %ld", long(first), long(first + count), long(rows()));
    TokenBatch out;
    for (int64_t r = 0; r < count; r++) append(first + r, out);
    out.sequence_starts.push_back(int32_t(out.tokens.size()));
    return out;
}

} // namespace nvl
