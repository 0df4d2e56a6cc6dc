#include "data/pack/packing.h"

#include <algorithm>
#include <map>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace nvl {

double PackedRows::padding() const {
    double positions = double(rows()) * double(row_length);
    return positions > 0 ? 1 - double(tokens) / positions : 0;
}
std::string PackedRows::report() const {
    return format("%s tokens in %s rows of %ld, %s pieces, %.2f%% padding, %s tokens cropped",
                  with_commas(tokens).c_str(), with_commas(rows()).c_str(), long(row_length),
                  with_commas(int64_t(pieces.size())).c_str(), 100 * padding(), with_commas(cropped).c_str());
}

static std::vector<Piece> pieces_of(const std::vector<DocumentSpan>& documents, int64_t row_length,
                                    LongDocuments long_documents, PackedRows& packed) {
    std::vector<Piece> pieces;
    for (const DocumentSpan& d : documents) {
        check(d.length > 0, "pack: a document has no tokens");
        int64_t kept = long_documents == LongDocuments::crop ? std::min(d.length, row_length) : d.length;
        for (int64_t at = 0; at < kept; at += row_length) {
            int64_t n = std::min(row_length, kept - at);
            pieces.push_back({d.begin + at, int32_t(n), d.shard, at + n < d.length});
        }
        packed.tokens += kept, packed.cropped += d.length - kept;
    }
    return pieces;
}

PackedRows pack(const std::vector<DocumentSpan>& documents, int64_t row_length,
                LongDocuments long_documents) {
    check(row_length >= 2 && row_length <= INT32_MAX, "pack: rows need at least 2 tokens, found %ld",
          long(row_length));
    PackedRows packed;
    packed.row_length = row_length;
    std::vector<Piece> pieces = pieces_of(documents, row_length, long_documents, packed);
    std::stable_sort(pieces.begin(), pieces.end(), [](auto& a, auto& b) { return a.length > b.length; });

    std::map<int64_t, std::vector<int64_t>> open; // free positions -> rows with exactly that many
    std::vector<int64_t> row_of(pieces.size());
    int64_t rows = 0;
    for (size_t i = 0; i < pieces.size(); i++) {
        auto fit = open.lower_bound(pieces[i].length);
        int64_t free = row_length, row = rows;
        if (fit == open.end()) {
            rows++;
        } else {
            free = fit->first, row = fit->second.back();
            fit->second.pop_back();
            if (fit->second.empty()) open.erase(fit);
        }
        row_of[i] = row;
        if (free > pieces[i].length) open[free - pieces[i].length].push_back(row);
    }

    packed.row_starts.assign(size_t(rows) + 1, 0);
    for (int64_t row : row_of) packed.row_starts[size_t(row) + 1]++;
    for (size_t r = 0; r < size_t(rows); r++) packed.row_starts[r + 1] += packed.row_starts[r];
    packed.pieces.resize(pieces.size());
    std::vector<int64_t> next(packed.row_starts);
    for (size_t i = 0; i < pieces.size(); i++) packed.pieces[size_t(next[size_t(row_of[i])]++)] = pieces[i];
    return packed;
}

} // namespace nvl
