#include "data/text/documents.h"

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "engine/base/check.h"
#include "engine/base/rng.h"
#include "engine/io/file.h"

namespace nvl {
namespace fs = std::filesystem;

namespace {
constexpr size_t SPLIT_ABOVE = 64 * 1024, JOIN_BELOW = 1024;

bool has_ending(const std::string& path, std::string_view ending) {
    return path.size() >= ending.size() && path.ends_with(ending);
}
bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == text.npos; }

std::string_view content_of(const MappedFile& file) {
    std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3); // byte order mark
    size_t bad = invalid_utf8(text);
    check(bad == text.npos,
          "%s:%ld: not UTF-8 (byte 0x%02x); convert it, for example with iconv -f latin1 -t utf-8",
          file.path().c_str(), long(1 + std::count(text.begin(), text.begin() + long(bad), '\n')),
          unsigned(static_cast<unsigned char>(text[bad])));
    return text;
}

std::string with_unix_lines(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size(); i++)
        if (!(text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n')) out += text[i];
    return out;
}
std::string_view without_blank_edges(std::string_view text) {
    // Leading blank lines go, the indentation of the first line of text stays.
    size_t first = text.find_first_not_of(" \t\r\n\f\v");
    if (first == text.npos) return {};
    size_t line = text.rfind('\n', first);
    text.remove_prefix(line == text.npos ? 0 : line + 1);
    return text.substr(0, text.find_last_not_of(" \t\r\n\f\v") + 1);
}

/// The next run of at least two blank lines at or after `from`: [begin, end) of the whole run of white space.
std::pair<size_t, size_t> next_gap(std::string_view text, size_t from) {
    while (from < text.size()) {
        size_t newline = text.find('\n', from);
        if (newline == text.npos) break;
        size_t end = newline, lines = 0;
        while (end < text.size() && (text[end] == '\n' || text[end] == ' ' || text[end] == '\t'))
            lines += text[end++] == '\n';
        if (lines >= 3) return {newline, end};
        from = std::max(end, newline + 1);
    }
    return {text.npos, text.npos};
}

void split_part(std::string_view part, std::vector<std::string>& out) {
    if (part.size() < SPLIT_ABOVE) {
        part = without_blank_edges(part);
        if (!part.empty()) out.emplace_back(part);
        return;
    }
    size_t begin = 0, search = 0;
    while (begin < part.size()) {
        auto [gap, next] = next_gap(part, search);
        std::string_view piece = part.substr(begin, gap == part.npos ? part.npos : gap - begin);
        search = next;
        if (gap != part.npos && without_blank_edges(piece).size() < JOIN_BELOW) continue;
        piece = without_blank_edges(piece);
        if (!piece.empty()) out.emplace_back(piece);
        begin = gap == part.npos ? part.size() : next;
    }
}

Document parse_line(std::string_view line, const std::string& where) {
    auto json = nlohmann::json::parse(line, nullptr, false);
    check(!json.is_discarded(), "%s: not valid JSON: expected one object per line", where.c_str());
    Document document;
    document.where = where;
    if (json.is_array() || (json.is_object() && json.contains("messages"))) {
        document.conversation = parse_conversation(json, where);
        return document;
    }
    check(json.is_object() && json.contains("text") && json["text"].is_string(),
          "%s: expected {\"text\": \"...\"} or {\"messages\": [...]}", where.c_str());
    document.text = json["text"].get<std::string>();
    return document;
}
} // namespace

size_t invalid_utf8(std::string_view s) {
    for (size_t i = 0; i < s.size();) {
        auto c = static_cast<unsigned char>(s[i]);
        if (c < 0x80) {
            i++;
            continue;
        }
        size_t n = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
        if (c < 0xC2 || c > 0xF4 || i + n > s.size()) return i;
        uint32_t code = c & (0x7Fu >> n);
        for (size_t k = 1; k < n; k++) {
            auto next = static_cast<unsigned char>(s[i + k]);
            if ((next & 0xC0) != 0x80) return i;
            code = code << 6 | (next & 0x3F);
        }
        bool overlong = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
        if (overlong || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return i;
        i += n;
    }
    return s.npos;
}

std::vector<std::string> split_text(std::string_view content) {
    std::string text = with_unix_lines(content);
    std::vector<std::string> out;
    for (size_t begin = 0; begin <= text.size();) {
        size_t end = std::min(text.find('\f', begin), text.size());
        split_part(std::string_view(text).substr(begin, end - begin), out);
        begin = end + 1;
    }
    return out;
}

std::vector<std::string> corpus_files(const std::vector<std::string>& paths) {
    check(!paths.empty(), "corpus: no path was given; expected .txt or .jsonl files or folders of them");
    std::vector<std::string> files;
    for (const std::string& path : paths) {
        check(exists(path), "%s: no such file or folder", path.c_str());
        if (!is_directory(path)) {
            check(has_ending(path, ".txt") || has_ending(path, ".jsonl"),
                  "%s: expected a .txt or .jsonl file or a folder", path.c_str());
            files.push_back(path);
            continue;
        }
        size_t before = files.size();
        std::error_code error;
        for (fs::recursive_directory_iterator it(path, error), end; !error && it != end;
             it.increment(error)) {
            std::string file = it->path().string();
            if (it->is_regular_file() && (has_ending(file, ".txt") || has_ending(file, ".jsonl")))
                files.push_back(file);
        }
        check(!error, "%s: cannot read the folder: %s", path.c_str(), error.message().c_str());
        check(files.size() > before, "%s: the folder holds no .txt or .jsonl file", path.c_str());
        std::sort(files.begin() + long(before), files.end());
    }
    return files;
}

void each_document(const std::vector<std::string>& paths, const std::function<void(Document&&)>& visit) {
    int64_t count = 0;
    for (const std::string& path : corpus_files(paths)) {
        MappedFile file(path);
        std::string_view content = content_of(file);
        if (has_ending(path, ".txt")) {
            for (std::string& text : split_text(content)) {
                visit({.text = std::move(text), .conversation = {}, .where = path});
                count++;
            }
            continue;
        }
        int64_t number = 0;
        for (size_t begin = 0; begin < content.size();) {
            size_t end = std::min(content.find('\n', begin), content.size());
            std::string_view line = content.substr(begin, end - begin);
            begin = end + 1, number++;
            if (is_blank(line)) continue;
            Document document = parse_line(line, format("%s:%ld", path.c_str(), long(number)));
            if (!document.conversation && is_blank(document.text)) continue;
            visit(std::move(document));
            count++;
        }
    }
    check(count > 0, "%s: the corpus is empty: no document with any text", paths[0].c_str());
}

std::vector<Document> read_documents(const std::vector<std::string>& paths) {
    std::vector<Document> documents;
    each_document(paths, [&](Document&& document) { documents.push_back(std::move(document)); });
    return documents;
}

double document_hash(const Document& document, uint64_t seed) {
    std::string conversation = document.conversation ? to_json(*document.conversation).dump() : "";
    uint64_t h = 0xcbf29ce484222325ull;
    for (std::string_view text : {std::string_view(document.text), std::string_view(conversation)})
        for (char c : text) h = (h ^ uint8_t(c)) * 0x100000001b3ull; // FNV-1a, mixed by Philox below
    return Random(seed, "held out").uniform(h);
}

std::vector<bool> held_out(const std::vector<Document>& documents, double fraction, uint64_t seed) {
    check(fraction >= 0 && fraction < 1, "held out fraction: expected at least 0 and below 1, found %g",
          fraction);
    std::vector<double> hash;
    for (const Document& document : documents) hash.push_back(document_hash(document, seed));
    std::vector<bool> out(documents.size());
    if (documents.empty() || fraction == 0) return out;
    auto [low, high] = std::minmax_element(hash.begin(), hash.end());
    if (*low == *high) return out; // one document, or copies of one: nothing can be held out
    for (size_t i = 0; i < hash.size(); i++)
        out[i] = (hash[i] < fraction || hash[i] == *low) && hash[i] != *high;
    return out;
}

} // namespace nvl
