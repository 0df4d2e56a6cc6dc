#include "data/pack/prepare.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "data/text/documents.h"
#include "engine/base/check.h"
#include "engine/base/text.h"

namespace nvl {
using nlohmann::json;
namespace fs = std::filesystem;

namespace {
/// A hash of all that decides the shards.
std::string key_of(const std::vector<std::string>& paths, const TokenizerId& tokenizer,
                   const PrepareOptions& o) {
    std::string key =
        format("prepare 1|%s|%ld|%.17g|%lu|%d|%d|%ld|%d", tokenizer.sha256.c_str(),
               long(tokenizer.vocabulary), o.validation_fraction, (unsigned long)o.seed, o.shards.begin,
               o.shards.end, long(o.shards.tokens_per_shard), o.chat != nullptr);
    for (const std::string& path : corpus_files(paths)) key += "|" + sha256_file(path);
    return sha256(std::as_bytes(std::span(key)));
}

json to_json(const PreparedSplit& s) {
    json names = json::array();
    for (const std::string& path : s.shards) names.push_back(fs::path(path).filename().string());
    return {{"shards", names}, {"documents", s.documents}, {"tokens", s.tokens}, {"bytes", s.bytes}};
}
PreparedSplit split_from_json(const json& j, const std::string& folder) {
    PreparedSplit s;
    for (const json& name : j.at("shards")) s.shards.push_back(folder + "/" + name.get<std::string>());
    j.at("documents").get_to(s.documents), j.at("tokens").get_to(s.tokens), j.at("bytes").get_to(s.bytes);
    return s;
}

/// What corpus.json says, if it was written for this key and its shards are there.
bool reuse(const std::string& folder, const std::string& key, PreparedCorpus& out) {
    std::string path = folder + "/corpus.json";
    if (!exists(path)) return false;
    json j = json::parse(read_file(path), nullptr, false);
    try {
        if (!j.is_object() || j.at("key") != key) return false;
        out.train = split_from_json(j.at("train"), folder);
        out.validation = split_from_json(j.at("validation"), folder);
    } catch (const json::exception&) {
        return false;
    }
    for (const auto* split : {&out.train, &out.validation})
        for (const std::string& shard : split->shards)
            if (!exists(shard)) return false;
    return out.reused = true;
}

void write_split(const std::string& folder, const std::string& prefix,
                 const std::vector<const Document*>& documents, const Encode& encode,
                 const TokenizerId& tokenizer, const PrepareOptions& options, PreparedSplit& out) {
    for (const fs::path& old :
         fs::directory_iterator(folder)) // of an earlier corpus, which may have had more shards
        if (old.filename().string().starts_with(prefix + "-") && old.extension() == ".shard") fs::remove(old);
    if (documents.empty()) return;
    auto ids_of = [&](int64_t i) {
        const Document& d = *documents[size_t(i)];
        return d.conversation ? options.chat->render(*d.conversation).ids
                              : encode_document(d.text, encode, options.shards);
    };
    out.shards = write_shards(folder, prefix, int64_t(documents.size()), ids_of, tokenizer,
                              options.shards.tokens_per_shard);
    out.documents = int64_t(documents.size());
    for (const Document* d : documents) {
        out.bytes += int64_t(d->text.size());
        if (d->conversation)
            for (const Message& m : d->conversation->messages)
                for (const Part& p : m.parts) out.bytes += int64_t(p.content.size());
    }
    for (const std::string& path : out.shards) out.tokens += Shard(path, tokenizer).tokens();
}
} // namespace

std::string PreparedCorpus::report() const {
    auto line = [](const char* name, const PreparedSplit& s) {
        return format("%s %s documents, %s tokens, %.2f bytes per token", name,
                      with_commas(s.documents).c_str(), with_commas(s.tokens).c_str(),
                      s.tokens ? double(s.bytes) / double(s.tokens) : 0);
    };
    return line("train:", train) + "; " + line("validation:", validation) + (reused ? " (reused)" : "");
}

PreparedCorpus prepare_corpus(const std::vector<std::string>& paths, const std::string& folder,
                              const Encode& encode, const TokenizerId& tokenizer,
                              const PrepareOptions& options) {
    PreparedCorpus out;
    std::string key = key_of(paths, tokenizer, options);
    if (reuse(folder, key, out)) return out;
    std::vector<Document> documents = read_documents(paths);
    for (const Document& d : documents)
        check(!d.conversation || options.chat, "%s: a conversation; expected plain text here",
              d.where.c_str());
    std::vector<bool> validation = held_out(documents, options.validation_fraction, options.seed);
    std::vector<const Document*> splits[2];
    for (size_t i = 0; i < documents.size(); i++) splits[validation[i]].push_back(&documents[i]);

    make_directories(folder);
    fs::remove(folder +
               "/corpus.json"); // first, so that an interrupted run is never taken for a finished one
    write_split(folder, "train", splits[0], encode, tokenizer, options, out.train);
    write_split(folder, "validation", splits[1], encode, tokenizer, options, out.validation);
    json j = {{"key", key}, {"train", to_json(out.train)}, {"validation", to_json(out.validation)}};
    write_file(folder + "/corpus.json", j.dump(2) + "\n");
    return out;
}

} // namespace nvl
