// Reads Hugging Face's tokenizer.json and the small files beside it. What a file asks for
// and we do not do is an error that names it: ids that differ silently would be worse than none.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/tokenizer/read_json.h"
#include "engine/base/check.h"
#include "engine/io/file.h"
#include "engine/io/printable.h"

namespace nvl {

namespace {

using Json = nlohmann::json;
using Node = JsonNode;

constexpr int MAX_DEPTH = 32;

Json parse(const std::string& path) {
    std::string text = read_file(path);
    auto shallow = [&](int depth, Json::parse_event_t, Json&) {
        check(depth <= MAX_DEPTH, "%s: nested deeper than %d levels", path.c_str(), MAX_DEPTH);
        return true;
    };
    try {
        Json json = Json::parse(text, shallow);
        check(json.is_object(), "%s: expected a JSON object, found %s", path.c_str(), json.type_name());
        return json;
    } catch (const Json::parse_error& e) {
        std::string what = e.what();
        fail("%s: not valid JSON: %s", path.c_str(), what.substr(what.find("] ") + 2).c_str());
    }
}

void read_vocabulary(Node vocab, TokenizerParts& parts) {
    auto& object = vocab.object();
    check(!object.empty(), "%s: the vocabulary is empty", vocab.where.c_str());
    size_t limit = std::min(MAX_IDS, 4 * object.size() + 65536); // gaps are few in every real vocabulary
    for (auto& [piece, value] : object.items()) {
        int id = Node{&value, vocab.where + "." + piece.substr(0, 60)}.id();
        check(!piece.empty(), "%s: id %d has an empty piece", vocab.where.c_str(), id);
        check(size_t(id) < limit, "%s: id %d is far outside a vocabulary of %zu pieces", vocab.where.c_str(),
              id, object.size());
        if (size_t(id) >= parts.vocabulary.size()) parts.vocabulary.resize(size_t(id) + 1);
        auto& slot = parts.vocabulary[size_t(id)];
        check(slot.empty(), "%s: two pieces have id %d: '%s' and '%s'", vocab.where.c_str(), id,
              printable(slot).c_str(), printable(piece).c_str());
        slot = piece;
    }
}

void read_merges(Node merges, TokenizerParts& parts) {
    std::unordered_map<std::string_view, int> id_of;
    for (size_t i = 0; i < parts.vocabulary.size(); i++)
        if (!parts.vocabulary[i].empty()) id_of.emplace(parts.vocabulary[i], int(i));
    auto& list = merges.array();
    parts.merges.reserve(list.size());
    auto id = [&](std::string_view piece, size_t i) {
        auto at = id_of.find(piece);
        check(at != id_of.end(), "%s[%zu]: '%.*s' is not in the vocabulary", merges.where.c_str(), i,
              int(std::min<size_t>(piece.size(), 60)), piece.data());
        return at->second;
    };
    for (size_t i = 0; i < list.size(); i++) {
        auto& m = list[i];
        if (m.is_string()) { // "left right"
            std::string_view text = m.get_ref<const std::string&>();
            size_t space = text.find(' ');
            check(space != text.npos && text.find(' ', space + 1) == text.npos,
                  "%s[%zu]: expected two pieces with a space between them", merges.where.c_str(), i);
            parts.merges.emplace_back(id(text.substr(0, space), i), id(text.substr(space + 1), i));
        } else {
            check(m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string(),
                  "%s[%zu]: expected two pieces", merges.where.c_str(), i);
            parts.merges.emplace_back(id(m[0].get_ref<const std::string&>(), i),
                                      id(m[1].get_ref<const std::string&>(), i));
        }
    }
}

void read_bpe(Node model, TokenizerParts& parts) {
    check(model["dropout"].null() || *model["dropout"].value == 0,
          "%s.dropout: merge dropout is not supported", model.where.c_str());
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
        check(model[key].string_or("").empty(), "%s.%s: not supported, found '%s'", model.where.c_str(), key,
              printable(model[key].string()).c_str());
    parts.ignore_merges = model["ignore_merges"].boolean_or(false);
    auto& o = parts.pieces;
    o.byte_fallback = model["byte_fallback"].boolean_or(false);
    o.fuse_unknown = model["fuse_unk"].boolean_or(false);
    read_vocabulary(model["vocab"], parts);
    read_merges(model["merges"], parts);
}

void read_wordpiece(Node model, TokenizerParts& parts) {
    parts.algorithm = Algorithm::wordpiece;
    auto& o = parts.words;
    o.prefix = model["continuing_subword_prefix"].string_or("##");
    o.longest = model["max_input_chars_per_word"].null() ? 100 : model["max_input_chars_per_word"].id();
    check(!o.prefix.empty(), "%s.continuing_subword_prefix: expected some text", model.where.c_str());
    read_vocabulary(model["vocab"], parts);
}

void read_model(Node model, TokenizerParts& parts) {
    std::string type = model["type"].string_or("BPE"); // early files do not say
    check(type == "BPE" || type == "WordPiece", "%s.type: expected BPE or WordPiece, found '%s'",
          model.where.c_str(), printable(type).c_str());
    parts.unknown = model["unk_token"].string_or("");
    type == "BPE" ? read_bpe(model, parts) : read_wordpiece(model, parts);
}

void read_added(Node added, TokenizerParts& parts) {
    if (added.null()) return;
    for (size_t i = 0; i < added.array().size(); i++) {
        Node n = added.at(i);
        AddedToken t;
        t.id = n["id"].id();
        t.content = n["content"].string();
        t.special = n["special"].boolean_or(false);
        t.lstrip = n["lstrip"].boolean_or(false);
        t.rstrip = n["rstrip"].boolean_or(false);
        t.single_word = n["single_word"].boolean_or(false);
        t.normalized = n["normalized"].boolean_or(!t.special);
        parts.added.push_back(std::move(t));
    }
}

// "<s>", or {"content": "<s>", ...}, or null.
std::string token_name(Node n) {
    if (n.null()) return "";
    return n.value->is_object() ? n["content"].string() : n.string();
}
void read_names(Node config, TokenizerParts& parts) {
    auto take = [&](const char* key, std::string& name) {
        std::string found = token_name(config[key]);
        if (name.empty()) name = found;
    };
    take("bos_token", parts.bos), take("eos_token", parts.eos), take("pad_token", parts.pad);
}

// bos and the like may be pieces of the vocabulary that tokenizer.json does not list as added: they are
// special all the same, as `transformers` has it.
void add_named(TokenizerParts& parts) {
    for (auto* name : {&parts.bos, &parts.eos, &parts.pad}) {
        if (name->empty() || std::ranges::count(parts.added, *name, &AddedToken::content)) continue;
        auto at = std::ranges::find(parts.vocabulary, *name);
        if (at != parts.vocabulary.end())
            parts.added.push_back({.id = int(at - parts.vocabulary.begin()), .content = *name});
    }
}

// One template, or a list of named ones, of which "default" is meant.
std::string read_chat_template(Node n) {
    if (n.null() || n.value->is_string()) return n.string_or("");
    for (size_t i = 0; i < n.array().size(); i++)
        if (n.at(i)["name"].string() == "default") return n.at(i)["template"].string();
    fail("%s: no template is named 'default'", n.where.c_str());
}

void read_beside(const std::string& folder, TokenizerParts& parts) {
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
        if (std::string beside = folder + "/" + name; exists(beside)) {
            Json config = parse(beside);
            Node node{&config, beside + ": "};
            read_names(node, parts);
            if (parts.chat_template.empty()) parts.chat_template = read_chat_template(node["chat_template"]);
        }
}

} // namespace

Tokenizer Tokenizer::from_hf(const std::string& path) {
    std::string file = is_directory(path) ? path + "/tokenizer.json" : path;
    std::string folder = std::filesystem::path(file).parent_path().string();
    if (folder.empty()) folder = ".";
    check(exists(file), "%s: no such file; expected a tokenizer.json", file.c_str());
    Json json = parse(file);
    Node root{&json, file + ": "};
    TokenizerParts parts;
    parts.source = file;
    read_model(root["model"], parts);
    read_added(root["added_tokens"], parts);
    read_stages(root, parts);
    read_beside(folder, parts);
    add_named(parts);
    if (exists(folder + "/chat_template.jinja"))
        parts.chat_template = read_file(folder + "/chat_template.jinja");
    return Tokenizer(std::move(parts));
}

// The piece of line i has id i. What BERT's own Python files say stands in tokenizer_config.json.
Tokenizer Tokenizer::from_vocab_txt(const std::string& folder) {
    TokenizerParts parts;
    parts.source = folder + "/vocab.txt";
    parts.algorithm = Algorithm::wordpiece;
    std::string text = read_file(parts.source);
    std::unordered_map<std::string, int> id_of;
    for (size_t at = 0; at < text.size();) {
        size_t end = std::min(text.find('\n', at), text.size());
        std::string piece = text.substr(at, end - at);
        if (piece.ends_with('\r')) piece.pop_back();
        check(!piece.empty(), "%s: line %zu is empty", parts.source.c_str(), parts.vocabulary.size() + 1);
        check(id_of.emplace(piece, int(parts.vocabulary.size())).second, "%s: the piece '%s' stands twice",
              parts.source.c_str(), printable(piece).c_str());
        parts.vocabulary.push_back(std::move(piece));
        at = end + 1;
    }
    auto special = [&](const char* name) {
        auto at = id_of.find(name);
        check(at != id_of.end(), "%s: expected a BERT vocabulary: no piece %s", parts.source.c_str(), name);
        parts.added.push_back({.id = at->second, .content = name});
        return at->second;
    };
    parts.prefix = {special("[CLS]")}, parts.suffix = {special("[SEP]")};
    special("[UNK]"), parts.unknown = "[UNK]";
    for (const char* name : {"[PAD]", "[MASK]"})
        if (id_of.contains(name)) special(name);
    auto& o = parts.words;
    if (std::string beside = folder + "/tokenizer_config.json"; exists(beside)) {
        Json json = parse(beside);
        Node config{&json, beside + ": "};
        o.lowercase = config["do_lower_case"].boolean_or(true);
        o.strip_accents = config["strip_accents"].boolean_or(o.lowercase);
        o.cjk = config["tokenize_chinese_chars"].boolean_or(true);
    }
    read_beside(folder, parts);
    return Tokenizer(std::move(parts));
}

} // namespace nvl
