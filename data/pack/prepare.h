// From files to shards: reads a corpus, splits it into training and validation, tokenizes both, once.
#pragma once
#include <string>
#include <vector>

#include "data/chat/template.h"
#include "data/pack/shards.h"

namespace nvl {

struct PrepareOptions {
    double validation_fraction = 0.02; // of the documents, chosen by their content
    uint64_t seed = 0;                 // of that choice
    ShardOptions shards;
    const ChatTemplate* chat =
        nullptr; // renders documents that are conversations; without it they are errors
};

struct PreparedSplit {
    std::vector<std::string> shards; // empty for the validation split of a corpus of one document
    int64_t documents = 0, tokens = 0, bytes = 0; // bytes of text
};
struct PreparedCorpus {
    PreparedSplit train, validation;
    bool reused = false; // the folder already held exactly this
    std::string report() const;
};

/// Leaves folder/{train,validation}-*.shard and folder/corpus.json. When the folder holds the result of the
/// same files (by content), tokenizer and options, nothing is done. A run that was interrupted starts again.
PreparedCorpus prepare_corpus(const std::vector<std::string>& paths, const std::string& folder,
                              const Encode& encode, const TokenizerId& tokenizer,
                              const PrepareOptions& options = {});

} // namespace nvl
