// Packing: documents of any length into rows of exactly T tokens.
//
// Best fit decreasing (Johnson 1974): pieces from the longest to the shortest, each into the fullest row that
// still has room for it. It never needs more than 11/9 of the smallest possible number of rows, and real text
// with its many short pieces comes out almost full.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nvl {

/// A run of tokens of one document: whole, or a part of a document longer than a row.
struct Piece {
    int64_t begin = 0;  // first token, counted within its shard
    int32_t length = 0; // 1..T
    int32_t shard = 0;
    bool continues = false; // the document goes on after this piece
};

/// A document as the packer sees it.
struct DocumentSpan {
    int64_t begin = 0, length = 0;
    int32_t shard = 0;
};

enum class LongDocuments {
    cut, // into pieces of T tokens; the rest is a shorter piece. Nothing is lost
    crop // keep the first T tokens: what follows makes no sense without them (conversations)
};

struct PackedRows {
    int64_t row_length = 0;
    std::vector<Piece> pieces;       // in row order
    std::vector<int64_t> row_starts; // rows + 1 offsets into pieces
    int64_t tokens = 0;              // in the rows
    int64_t cropped = 0;             // tokens of documents that are in no row
    int64_t rows() const { return int64_t(row_starts.size()) - 1; }
    /// The share of the rows' positions that hold no token.
    double padding() const;
    std::string report() const; // one line for people
};

/// Deterministic: a function of the arguments alone.
PackedRows pack(const std::vector<DocumentSpan>& documents, int64_t row_length,
                LongDocuments long_documents = LongDocuments::cut);

} // namespace nvl
