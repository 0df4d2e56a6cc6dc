// Reads Hugging Face's tokenizer.json (byte-level BPE) and the small files beside it. What a file asks for
// and we do not do is an error that names it: ids that differ silently would be worse than none.
#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/tokenizer/tokenizer.h"
#include "engine/base/check.h"
#include "engine/io/file.h"
#include "engine/io/printable.h"

namespace nvl {

namespace {

using Json = nlohmann::json;

constexpr int MAX_DEPTH = 32;
constexpr size_t MAX_IDS = 1 << 24;

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

// A value and the path to it ("model.vocab"), so that every mistake has an address.
struct Node {
    const Json* value;
    std::string where;

    [[noreturn]] void expected(const char* what) const {
        fail("%s: expected %s, found %s", where.c_str(), what, value ? value->type_name() : "nothing");
    }
    Node operator[](const char* key) const {
        if (!value || !value->is_object()) expected("an object");
        auto at = value->find(key);
        return {at == value->end() ? nullptr : &*at, where + (where.ends_with(": ") ? "" : ".") + key};
    }
    Node at(size_t i) const { return {&(*value)[i], where + "[" + std::to_string(i) + "]"}; }
    bool null() const { return !value || value->is_null(); }
    const std::string& string() const {
        if (!value || !value->is_string()) expected("a string");
        return value->get_ref<const std::string&>();
    }
    std::string string_or(const char* other) const { return null() ? other : string(); }
    bool boolean_or(bool other) const {
        if (null()) return other;
        if (!value->is_boolean()) expected("true or false");
        return value->get<bool>();
    }
    int id() const {
        if (!value || !value->is_number_integer()) expected("an id");
        // a literal above 2^63 is unsigned in the parser
        bool fits = value->is_number_unsigned()
                        ? value->get<uint64_t>() < MAX_IDS
                        : value->get<int64_t>() >= 0 && value->get<int64_t>() < int64_t(MAX_IDS);
        if (!fits) expected("an id from 0 to 16777215");
        return value->get<int>();
    }
    const Json& array() const {
        if (!value || !value->is_array()) expected("a list");
        return *value;
    }
    const Json& object() const {
        if (!value || !value->is_object()) expected("an object");
        return *value;
    }
};

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

void read_model(Node model, TokenizerParts& parts) {
    std::string type = model["type"].string_or("BPE"); // early files do not say
    check(type == "BPE", "%s.type: only BPE is supported, found '%s'", model.where.c_str(), type.c_str());
    check(model["dropout"].null() || *model["dropout"].value == 0,
          "%s.dropout: merge dropout is not supported", model.where.c_str());
    check(!model["byte_fallback"].boolean_or(false),
          "%s.byte_fallback: vocabularies with byte fallback (SentencePiece) are not supported; expected a "
          "byte-level one",
          model.where.c_str());
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
        check(model[key].string_or("").empty(), "%s.%s: not supported, found '%s'", model.where.c_str(), key,
              printable(model[key].string()).c_str());
    parts.ignore_merges = model["ignore_merges"].boolean_or(false);
    parts.unknown = model["unk_token"].string_or("");
    check(parts.unknown.empty() || !model["fuse_unk"].boolean_or(false), "%s.fuse_unk: not supported",
          model.where.c_str());
    read_vocabulary(model["vocab"], parts);
    read_merges(model["merges"], parts);
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

void read_normalizer(Node n, TokenizerParts& parts) {
    if (n.null()) return;
    const std::string& type = n["type"].string();
    if (type == "Sequence") {
        Node list = n["normalizers"];
        for (size_t i = 0; i < list.array().size(); i++) read_normalizer(list.at(i), parts);
        return;
    }
    NormalForm form = type == "NFC"    ? NormalForm::nfc
                      : type == "NFD"  ? NormalForm::nfd
                      : type == "NFKC" ? NormalForm::nfkc
                      : type == "NFKD" ? NormalForm::nfkd
                                       : NormalForm::none;
    check(form != NormalForm::none, "%s: the normalizer '%s' is not supported (known: NFC, NFD, NFKC, NFKD)",
          n.where.c_str(), type.c_str());
    check(parts.normal_form == NormalForm::none || parts.normal_form == form,
          "%s: two normal forms one after the other are not supported", n.where.c_str());
    parts.normal_form = form;
}

void read_split(Node n, TokenizerParts& parts) {
    Node pattern = n["pattern"];
    bool literal = pattern["Regex"].null();
    std::string text = literal ? regex_quote(pattern["String"].string()) : pattern["Regex"].string();
    Splitter before = parts.splitter;
    parts.splitter.add_pattern(text);
    std::string behavior = n["behavior"].string_or("Isolated");
    bool keeps_all =
        parts.splitter.stages().back().kind != Splitter::Kind::regex; // known patterns match everything
    bool matches_only = behavior == "Removed" && n["invert"].boolean_or(false) && keeps_all;
    check(behavior == "Isolated" || matches_only, "%s.behavior: only Isolated is supported, found '%s'",
          n.where.c_str(), behavior.c_str());
}

// Appends the stages; returns whether one of them is ByteLevel.
bool read_pre_tokenizer(Node n, TokenizerParts& parts) {
    if (n.null()) return false;
    const std::string& type = n["type"].string();
    if (type == "Sequence") {
        bool found = false;
        Node list = n["pretokenizers"];
        for (size_t i = 0; i < list.array().size(); i++) {
            check(!found, "%s: a stage after ByteLevel is not supported", list.at(i).where.c_str());
            found = read_pre_tokenizer(list.at(i), parts);
        }
        return found;
    }
    if (type == "Split") {
        read_split(n, parts);
        return false;
    }
    if (type == "Digits") {
        parts.splitter.add(n["individual_digits"].boolean_or(false) ? Splitter::Kind::digits
                                                                    : Splitter::Kind::digit_runs);
        return false;
    }
    check(type == "ByteLevel",
          "%s: the pre-tokenizer '%s' is not supported (known: ByteLevel, Split, Digits, Sequence)",
          n.where.c_str(), type.c_str());
    parts.add_prefix_space = n["add_prefix_space"].boolean_or(true);
    check(!parts.add_prefix_space || parts.splitter.stages().empty(),
          "%s.add_prefix_space: only supported where ByteLevel is the only stage", n.where.c_str());
    if (n["use_regex"].boolean_or(true)) parts.splitter.add(Splitter::Kind::gpt2);
    return true;
}

bool read_decoder(Node n) {
    if (n.null()) return false;
    const std::string& type = n["type"].string();
    if (type == "Sequence") {
        Node list = n["decoders"];
        check(list.array().size() == 1, "%s: expected ByteLevel alone", list.where.c_str());
        return read_decoder(list.at(0));
    }
    check(type == "ByteLevel", "%s: the decoder '%s' is not supported (known: ByteLevel)", n.where.c_str(),
          type.c_str());
    return true;
}

void read_template(Node n, TokenizerParts& parts) {
    bool seen_text = false;
    Node single = n["single"];
    for (size_t i = 0; i < single.array().size(); i++) {
        Node piece = single.at(i);
        if (!piece["Sequence"].null()) {
            check(!seen_text, "%s: the text stands twice in the template", single.where.c_str());
            seen_text = true;
            continue;
        }
        const std::string& name = piece["SpecialToken"]["id"].string();
        Node ids = n["special_tokens"][name.c_str()]["ids"];
        for (size_t j = 0; j < ids.array().size(); j++)
            (seen_text ? parts.suffix : parts.prefix).push_back(ids.at(j).id());
    }
    check(seen_text, "%s: the template has no place for the text", single.where.c_str());
}
void read_post_processor(Node n, TokenizerParts& parts) {
    if (n.null()) return;
    const std::string& type = n["type"].string();
    if (type == "Sequence") {
        Node list = n["processors"];
        for (size_t i = 0; i < list.array().size(); i++) read_post_processor(list.at(i), parts);
    } else if (type == "TemplateProcessing") {
        check(parts.prefix.empty() && parts.suffix.empty(), "%s: two templates are not supported",
              n.where.c_str());
        read_template(n, parts);
    } else {
        check(type == "ByteLevel",
              "%s: the post-processor '%s' is not supported (known: ByteLevel, TemplateProcessing, Sequence)",
              n.where.c_str(), type.c_str());
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
    read_normalizer(root["normalizer"], parts);
    bool bytes = read_pre_tokenizer(root["pre_tokenizer"], parts);
    bool decodes = read_decoder(root["decoder"]);
    check(bytes && (decodes || root["decoder"].null()),
          "%s: only byte-level vocabularies are supported: the pre-tokenizer has no ByteLevel stage",
          file.c_str());
    read_post_processor(root["post_processor"], parts);
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
        if (std::string beside = folder + "/" + name; exists(beside)) {
            Json config = parse(beside);
            Node node{&config, beside + ": "};
            read_names(node, parts);
            if (parts.chat_template.empty()) parts.chat_template = read_chat_template(node["chat_template"]);
        }
    add_named(parts);
    if (exists(folder + "/chat_template.jinja"))
        parts.chat_template = read_file(folder + "/chat_template.jinja");
    return Tokenizer(std::move(parts));
}

} // namespace nvl
