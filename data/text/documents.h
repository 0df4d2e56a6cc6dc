// Documents: what a corpus is made of, read from .txt, .jsonl and folders of them.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat/conversation.h"

namespace nvl {

/// One document: plain text, or a conversation where the line of .jsonl has "messages".
struct Document {
    std::string text;                         // UTF-8, lines end with \n; empty if `conversation` is set
    std::optional<Conversation> conversation; // rendered to tokens by the chat template
    std::string where;                        // "folder/file.jsonl:12", for errors
};

/// Every .txt and .jsonl file of `paths` (files, or folders walked recursively) in sorted order. A path that
/// is missing, a file with another ending and a folder without any text are errors.
std::vector<std::string> corpus_files(const std::vector<std::string>& paths);

/// Calls visit for every document in order: files sorted by path, documents in file order. The result depends
/// on the content of the files alone. A corpus without any document is an error.
///
///   .txt     form feeds separate documents. A part below 64 KiB is one document; a larger one is also split
///            where two or more blank lines follow each other (books mark their chapters so), and pieces
///            below 1 KiB join the next one, so that a heading stays with its text.
///   .jsonl   one JSON object a line with "text": string or "messages": [...], or a bare array of messages;
///            blank lines are skipped, other keys are ignored.
void each_document(const std::vector<std::string>& paths, const std::function<void(Document&&)>& visit);
std::vector<Document> read_documents(const std::vector<std::string>& paths);

/// The documents of one .txt content, by the rule above.
std::vector<std::string> split_text(std::string_view content);

/// A number in [0, 1) that depends on the document's content and the seed alone.
double document_hash(const Document& document, uint64_t seed);

/// Which documents are held out for validation: those whose hash is below `fraction`, so that a copy of a
/// document is always on the same side, and at least one of two different documents is on each side.
std::vector<bool> held_out(const std::vector<Document>& documents, double fraction, uint64_t seed);

/// The offset of the first byte that is not valid UTF-8 (overlong forms and surrogates included), or npos.
size_t invalid_utf8(std::string_view bytes);

} // namespace nvl
