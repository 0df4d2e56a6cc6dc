// The loader: packed rows in a stateless shuffled order, as batches a model can train on.
//
// Row r of the run (rows are counted over all epochs, ranks and micro-batches) is row permuted(r mod n, n,
// seed + r div n) of the n packed rows: the loader's state is the one integer "rows consumed". Any split of
// rows first..first+count over ranks and micro-batches sees the same rows, and a resumed run goes on exactly.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/pack/packing.h"
#include "data/pack/shards.h"

namespace nvl {

/// `count` rows of T tokens, one after the other.
struct TokenBatch {
    std::vector<int32_t> tokens;          // count * T
    std::vector<int32_t> labels;          // the next token of the same document; -1 where nothing is learned
    std::vector<int32_t> positions;       // from 0 in every piece
    std::vector<int32_t> sequence_starts; // attention stays between neighbours: 0, ..., count * T
    int64_t valid = 0;                    // labels that are not -1
};

struct DatasetOptions {
    LongDocuments long_documents = LongDocuments::cut;
    int32_t padding_id =
        0; // fills the end of a row that is not full; it is a sequence of its own, without labels
};

class PackedDataset {
public:
    PackedDataset(const std::vector<std::string>& shard_paths, const TokenizerId& tokenizer,
                  int64_t row_length, uint64_t seed, const DatasetOptions& options = {});

    int64_t rows() const { return packed_.rows(); } // in one epoch
    int64_t row_length() const { return packed_.row_length; }
    const PackedRows& packed() const { return packed_; }

    /// Rows first_row .. first_row + count - 1 of the run.
    TokenBatch batch(int64_t first_row, int64_t count) const;
    /// batch(first_row, count).valid without making the batch: the divisor of a loss over many micro-batches.
    int64_t valid(int64_t first_row, int64_t count) const;
    /// Rows in packed order, for evaluation; first + count <= rows().
    TokenBatch ordered(int64_t first, int64_t count) const;
    /// The most sequences that any row has (padding included): sequence_starts never has more than count
    /// times this, plus 1.
    int64_t max_sequences_per_row() const { return max_sequences_; }

private:
    int64_t packed_row(int64_t run_row) const;
    void append(int64_t packed_row, TokenBatch& batch) const;
    int32_t label(const Piece& piece, int32_t i) const;

    std::vector<std::unique_ptr<class Shard>> shards_; // "class": engine/comm has a function of that name
    PackedRows packed_;
    uint64_t seed_;
    DatasetOptions options_;
    std::vector<int32_t> valid_; // per packed row
    int64_t max_sequences_ = 0;
};

} // namespace nvl
