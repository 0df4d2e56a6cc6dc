// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json as `tokenizers` and `transformers`
// read them.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/tokenizer/tokenizer.h"
#include "engine/base/check.h"
#include "engine/io/file.h"

namespace nvl {

namespace {

using Json = nlohmann::ordered_json;

Json byte_level(bool add_prefix_space, bool use_regex) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", add_prefix_space},
            {"trim_offsets", true},
            {"use_regex", use_regex}};
}

Json replace(std::string_view from, std::string_view to) {
    return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

// As the normalizer and pre-tokenizer of a vocabulary of SentencePiece's kind.
Json metaspace(const PieceOptions& o) {
    const char* schemes[] = {"never", "first", "always"};
    return {{"type", "Metaspace"},
            {"replacement", SPACE_PIECE},
            {"prepend_scheme", schemes[int(o.prefix)]},
            {"split", o.split}};
}

Json pre_tokenizer(const TokenizerParts& parts) {
    if (parts.algorithm == Algorithm::wordpiece) return {{"type", "BertPreTokenizer"}};
    if (parts.algorithm == Algorithm::piece_bpe)
        return parts.pieces.metaspace ? metaspace(parts.pieces) : Json(nullptr);
    auto& stages = parts.splitter.stages();
    bool gpt2_last = !stages.empty() && stages.back().kind == Splitter::Kind::gpt2;
    Json list = Json::array();
    for (size_t i = 0; i + (gpt2_last ? 1 : 0) < stages.size(); i++) {
        auto kind = stages[i].kind;
        if (kind == Splitter::Kind::digits || kind == Splitter::Kind::digit_runs)
            list.push_back({{"type", "Digits"}, {"individual_digits", kind == Splitter::Kind::digits}});
        else
            list.push_back({{"type", "Split"},
                            {"pattern", {{"Regex", Splitter::pattern_of(stages[i])}}},
                            {"behavior", "Isolated"},
                            {"invert", false}});
    }
    list.push_back(byte_level(parts.add_prefix_space, gpt2_last));
    if (list.size() == 1) return list[0];
    return {{"type", "Sequence"}, {"pretokenizers", list}};
}

const std::string& content_of(const TokenizerParts& parts, int id) {
    auto at = std::ranges::find(parts.added, id, &AddedToken::id);
    return at == parts.added.end() ? parts.vocabulary[size_t(id)] : at->content;
}

Json post_processor(const Tokenizer& t) {
    auto& parts = t.parts();
    if (parts.prefix.empty() && parts.suffix.empty())
        return parts.algorithm == Algorithm::byte_bpe ? byte_level(true, true) : Json(nullptr);
    Json single = Json::array(), pair = Json::array(), specials = Json::object();
    auto put = [&](Json& list, const std::vector<int>& ids, int type) {
        for (int id : ids) {
            const std::string& content = content_of(parts, id);
            list.push_back({{"SpecialToken", {{"id", content}, {"type_id", type}}}});
            specials[content] = {{"id", content}, {"ids", {id}}, {"tokens", {content}}};
        }
    };
    auto text = [](const char* name, int type) -> Json {
        return {{"Sequence", {{"id", name}, {"type_id", type}}}};
    };
    put(single, parts.prefix, 0), single.push_back(text("A", 0)), put(single, parts.suffix, 0);
    pair = single;
    put(pair, parts.prefix, 1), pair.push_back(text("B", 1)), put(pair, parts.suffix, 1);
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}};
}

Json normalizer(const TokenizerParts& parts) {
    if (parts.algorithm == Algorithm::wordpiece) {
        auto& o = parts.words;
        return {{"type", "BertNormalizer"},
                {"clean_text", o.clean},
                {"handle_chinese_chars", o.cjk},
                {"strip_accents", o.strip_accents},
                {"lowercase", o.lowercase}};
    }
    const char* names[] = {nullptr, "NFC", "NFD", "NFKC", "NFKD"};
    Json list = Json::array();
    if (const char* name = names[int(parts.normal_form)]) list.push_back({{"type", name}});
    if (parts.pieces.prepends) list.push_back({{"type", "Prepend"}, {"prepend", SPACE_PIECE}});
    if (parts.pieces.replaces) list.push_back(replace(" ", SPACE_PIECE));
    if (list.empty()) return nullptr;
    if (list.size() == 1) return list[0];
    return {{"type", "Sequence"}, {"normalizers", list}};
}

Json decoder(const TokenizerParts& parts) {
    if (parts.algorithm == Algorithm::byte_bpe) return byte_level(true, true);
    if (parts.algorithm == Algorithm::wordpiece)
        return {{"type", "WordPiece"}, {"prefix", parts.words.prefix}, {"cleanup", parts.words.cleanup}};
    Json list = Json::array({replace(SPACE_PIECE, " ")});
    if (parts.pieces.byte_fallback) list.push_back({{"type", "ByteFallback"}});
    list.push_back({{"type", "Fuse"}});
    if (parts.pieces.drops_first_space)
        list.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    return {{"type", "Sequence"}, {"decoders", list}};
}

// `tokenizers` gives an added token that is not in the vocabulary the next free id; where that would not be
// its id, the token must be in the vocabulary too.
Json vocabulary(const TokenizerParts& parts) {
    std::vector<std::string> pieces = parts.vocabulary;
    auto count = size_t(std::ranges::count_if(pieces, [](auto& p) { return !p.empty(); }));
    size_t next = count;
    for (auto& a : parts.added)
        if (pieces[size_t(a.id)].empty() && size_t(a.id) == next) next++;
    if (next != pieces.size())
        for (auto& a : parts.added)
            if (pieces[size_t(a.id)].empty()) pieces[size_t(a.id)] = a.content;
    Json vocab = Json::object();
    auto& object = vocab.get_ref<Json::object_t&>(); // appended in order: operator[] would search for the key
    object.reserve(pieces.size());
    for (size_t i = 0; i < pieces.size(); i++)
        if (!pieces[i].empty()) object.emplace_back(replace_invalid_utf8(pieces[i]), int(i));
    return vocab;
}

Json model(const Tokenizer& t) {
    auto& parts = t.parts();
    if (parts.algorithm == Algorithm::wordpiece)
        return {{"type", "WordPiece"},
                {"unk_token", parts.unknown},
                {"continuing_subword_prefix", parts.words.prefix},
                {"max_input_chars_per_word", parts.words.longest},
                {"vocab", vocabulary(parts)}};
    Json merges = Json::array();
    for (auto [a, b] : t.merges())
        merges.push_back({parts.vocabulary[size_t(a)], parts.vocabulary[size_t(b)]});
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", parts.unknown.empty() ? Json(nullptr) : Json(parts.unknown)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", parts.pieces.fuse_unknown},
            {"byte_fallback", parts.pieces.byte_fallback},
            {"ignore_merges", parts.ignore_merges},
            {"vocab", vocabulary(parts)},
            {"merges", merges}};
}

Json added_token(const AddedToken& a, bool with_id) {
    Json json = Json::object();
    if (with_id) json["id"] = a.id;
    json["content"] = a.content;
    json["single_word"] = a.single_word, json["lstrip"] = a.lstrip, json["rstrip"] = a.rstrip;
    json["normalized"] = a.normalized, json["special"] = a.special;
    return json;
}

void write(const std::string& path, const Json& json) {
    write_file(path, json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

} // namespace

void Tokenizer::save(const std::string& directory) const {
    make_directories(directory);
    Json added = Json::array(), tokens = Json::object(), additional = Json::array();
    for (auto& a : parts_.added) {
        added.push_back(added_token(a, true));
        tokens[std::to_string(a.id)] = added_token(a, false);
        if (a.special && a.id != bos_ && a.id != eos_ && a.id != pad_) additional.push_back(a.content);
    }
    Json names = Json::object();
    if (bos_ >= 0) names["bos_token"] = parts_.bos;
    if (eos_ >= 0) names["eos_token"] = parts_.eos;
    if (pad_ >= 0) names["pad_token"] = parts_.pad;
    if (!additional.empty()) names["additional_special_tokens"] = additional;

    Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                   {"clean_up_tokenization_spaces", false},
                   {"add_prefix_space", parts_.add_prefix_space},
                   {"added_tokens_decoder", tokens}};
    config.update(names);
    if (!parts_.chat_template.empty()) config["chat_template"] = parts_.chat_template;
    write(directory + "/tokenizer.json", {{"version", "1.0"},
                                          {"truncation", nullptr},
                                          {"padding", nullptr},
                                          {"added_tokens", added},
                                          {"normalizer", normalizer(parts_)},
                                          {"pre_tokenizer", pre_tokenizer(parts_)},
                                          {"post_processor", post_processor(*this)},
                                          {"decoder", decoder(parts_)},
                                          {"model", model(*this)}});
    write(directory + "/tokenizer_config.json", config);
    write(directory + "/special_tokens_map.json", names);
}

} // namespace nvl
