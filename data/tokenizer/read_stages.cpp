// The stages of a tokenizer.json around its model: normalizer, pre-tokenizer, decoder, post-processor. What a
// file asks for and we do not do is an error that names it.
#include "data/tokenizer/read_json.h"
#include "engine/io/printable.h"

namespace nvl {

namespace {

using Node = JsonNode;

// A stage that consists of others calls `visit` for each, with its key.
template <class F> bool is_sequence(Node n, const char* key, const F& visit) {
    if (n["type"].string() != "Sequence") return false;
    Node list = n[key];
    for (size_t i = 0; i < list.array().size(); i++) visit(list.at(i));
    return true;
}

void read_bert_normalizer(Node n, TokenizerParts& parts) {
    check(parts.algorithm == Algorithm::wordpiece, "%s: BertNormalizer is supported with WordPiece only",
          n.where.c_str());
    auto& o = parts.words;
    o.clean = n["clean_text"].boolean_or(true);
    o.cjk = n["handle_chinese_chars"].boolean_or(true);
    o.lowercase = n["lowercase"].boolean_or(true);
    o.strip_accents = n["strip_accents"].boolean_or(o.lowercase);
}

// " " -> U+2581 and U+2581 in front are what vocabularies of SentencePiece's kind ask for.
bool read_space_normalizer(Node n, const std::string& type, TokenizerParts& parts) {
    if (type != "Replace" && type != "Prepend") return false;
    bool first = type == "Prepend"; // before spaces are replaced, after or alone: all the same
    const std::string& text = n[first ? "prepend" : "content"].string();
    check(text == SPACE_PIECE && (first || n["pattern"]["String"].string_or("") == " "),
          "%s: %s is supported for U+2581 and spaces only", n.where.c_str(), type.c_str());
    (first ? parts.pieces.prepends : parts.pieces.replaces) = true;
    return true;
}

void read_normalizer(Node n, TokenizerParts& parts) {
    if (n.null()) return;
    if (is_sequence(n, "normalizers", [&](Node m) { read_normalizer(m, parts); })) return;
    const std::string& type = n["type"].string();
    if (type == "BertNormalizer") return read_bert_normalizer(n, parts);
    if (read_space_normalizer(n, type, parts)) return;
    NormalForm form = type == "NFC"    ? NormalForm::nfc
                      : type == "NFD"  ? NormalForm::nfd
                      : type == "NFKC" ? NormalForm::nfkc
                      : type == "NFKD" ? NormalForm::nfkd
                                       : NormalForm::none;
    check(form != NormalForm::none,
          "%s: the normalizer '%s' is not supported (known: NFC, NFD, NFKC, NFKD, Replace, Prepend, "
          "BertNormalizer)",
          n.where.c_str(), printable(type).c_str());
    check(parts.normal_form == NormalForm::none || parts.normal_form == form,
          "%s: two normal forms one after the other are not supported", n.where.c_str());
    check(!parts.pieces.replaces && !parts.pieces.prepends, "%s: a normal form after %s is not supported",
          n.where.c_str(), parts.pieces.replaces ? "Replace" : "Prepend");
    parts.normal_form = form;
}

void read_split(Node n, TokenizerParts& parts) {
    Node pattern = n["pattern"];
    bool literal = pattern["Regex"].null();
    if (literal && pattern["String"].string() == " " && parts.pieces.replaces) return; // no space is left
    std::string text = literal ? regex_quote(pattern["String"].string()) : pattern["Regex"].string();
    parts.splitter.add_pattern(text);
    std::string behavior = n["behavior"].string_or("Isolated");
    bool keeps_all =
        parts.splitter.stages().back().kind != Splitter::Kind::regex; // known patterns match everything
    bool matches_only = behavior == "Removed" && n["invert"].boolean_or(false) && keeps_all;
    check(behavior == "Isolated" || matches_only, "%s.behavior: only Isolated is supported, found '%s'",
          n.where.c_str(), printable(behavior).c_str());
}

void read_metaspace(Node n, TokenizerParts& parts) {
    auto& o = parts.pieces;
    check(n["replacement"].string_or("\xE2\x96\x81") == SPACE_PIECE, "%s.replacement: expected U+2581",
          n.where.c_str());
    std::string scheme =
        n["prepend_scheme"].string_or(n["add_prefix_space"].boolean_or(true) ? "always" : "never");
    check(scheme == "always" || scheme == "first" || scheme == "never",
          "%s.prepend_scheme: expected always, first or never, found '%s'", n.where.c_str(),
          printable(scheme).c_str());
    o.metaspace = true;
    o.prefix = scheme == "always"  ? PrefixSpace::always
               : scheme == "first" ? PrefixSpace::first
                                   : PrefixSpace::never;
    o.split = n["split"].boolean_or(true);
}

enum class PreTokenizer : uint8_t { none, bytes, metaspace, bert };

// Appends the stages; returns which of them turns text into what the model reads.
PreTokenizer read_pre_tokenizer(Node n, TokenizerParts& parts) {
    if (n.null()) return PreTokenizer::none;
    PreTokenizer found = PreTokenizer::none;
    if (is_sequence(n, "pretokenizers", [&](Node m) {
            check(found == PreTokenizer::none, "%s: a stage after the last one is not supported",
                  m.where.c_str());
            found = read_pre_tokenizer(m, parts);
        }))
        return found;
    const std::string& type = n["type"].string();
    if (type == "BertPreTokenizer") return PreTokenizer::bert;
    if (type == "Metaspace") return read_metaspace(n, parts), PreTokenizer::metaspace;
    if (type == "Split") return read_split(n, parts), PreTokenizer::none;
    if (type == "Digits") {
        parts.splitter.add(n["individual_digits"].boolean_or(false) ? Splitter::Kind::digits
                                                                    : Splitter::Kind::digit_runs);
        return PreTokenizer::none;
    }
    check(type == "ByteLevel",
          "%s: the pre-tokenizer '%s' is not supported (known: ByteLevel, Split, Digits, Metaspace, "
          "BertPreTokenizer, Sequence)",
          n.where.c_str(), printable(type).c_str());
    parts.add_prefix_space = n["add_prefix_space"].boolean_or(true);
    check(!parts.add_prefix_space || parts.splitter.stages().empty(),
          "%s.add_prefix_space: only supported where ByteLevel is the only stage", n.where.c_str());
    if (n["use_regex"].boolean_or(true)) parts.splitter.add(Splitter::Kind::gpt2);
    return PreTokenizer::bytes;
}

struct Decoder {
    bool bytes = false, spaces = false, fallback = false, words = false;
};

void read_decoder(Node n, TokenizerParts& parts, Decoder& found) {
    if (n.null() || is_sequence(n, "decoders", [&](Node m) { read_decoder(m, parts, found); })) return;
    const std::string& type = n["type"].string();
    if (type == "ByteLevel") {
        found.bytes = true;
    } else if (type == "Replace") {
        found.spaces = n["pattern"]["String"].string_or("") == SPACE_PIECE && n["content"].string() == " ";
        check(found.spaces, "%s: Replace is supported from U+2581 to a space only", n.where.c_str());
    } else if (type == "Metaspace") {
        found.spaces = true;
        parts.pieces.drops_first_space =
            n["prepend_scheme"].string_or("always") != "never" && n["add_prefix_space"].boolean_or(true);
    } else if (type == "ByteFallback") {
        found.fallback = true;
    } else if (type == "Strip") {
        check(n["content"].string() == " " && n["start"].id() <= 1 && n["stop"].id() == 0,
              "%s: Strip is supported for one space in front only", n.where.c_str());
        parts.pieces.drops_first_space = n["start"].id() == 1;
    } else if (type == "WordPiece") {
        found.words = true;
        check(n["prefix"].string_or("##") == parts.words.prefix, "%s.prefix: expected the model's, '%s'",
              n.where.c_str(), printable(parts.words.prefix).c_str());
        parts.words.cleanup = n["cleanup"].boolean_or(true);
    } else {
        check(type == "Fuse",
              "%s: the decoder '%s' is not supported (known: ByteLevel, Replace, Metaspace, ByteFallback, "
              "Fuse, Strip, WordPiece)",
              n.where.c_str(), printable(type).c_str());
    }
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

int id_of_pair(Node n) { // ["[SEP]", 102]
    check(n.array().size() == 2, "%s: expected a token and its id", n.where.c_str());
    return n.at(1).id();
}

void read_post_processor(Node n, TokenizerParts& parts) {
    if (n.null() || is_sequence(n, "processors", [&](Node m) { read_post_processor(m, parts); })) return;
    const std::string& type = n["type"].string();
    if (type == "ByteLevel") return;
    check(type == "TemplateProcessing" || type == "BertProcessing",
          "%s: the post-processor '%s' is not supported (known: ByteLevel, TemplateProcessing, "
          "BertProcessing, Sequence)",
          n.where.c_str(), printable(type).c_str());
    check(parts.prefix.empty() && parts.suffix.empty(), "%s: two templates are not supported",
          n.where.c_str());
    if (type == "TemplateProcessing") return read_template(n, parts);
    parts.prefix = {id_of_pair(n["cls"])}, parts.suffix = {id_of_pair(n["sep"])};
}

// The stages together must say one of the three kinds of vocabulary.
void check_kind(const std::string& source, PreTokenizer before, const Decoder& after, bool has_decoder,
                TokenizerParts& parts) {
    const char* file = source.c_str();
    auto& o = parts.pieces;
    if (parts.algorithm == Algorithm::wordpiece) {
        check(before == PreTokenizer::bert && (after.words || !has_decoder),
              "%s: WordPiece is supported with BertPreTokenizer and the decoder WordPiece", file);
        check(parts.normal_form == NormalForm::none && parts.splitter.stages().empty(),
              "%s: WordPiece is supported with BertNormalizer alone", file);
        return;
    }
    if (o.metaspace || o.replaces) {
        parts.algorithm = Algorithm::piece_bpe;
        check(!after.bytes && !after.words && (after.spaces || !has_decoder),
              "%s: a vocabulary with U+2581 needs the decoder Replace or Metaspace", file);
        check(before != PreTokenizer::bytes && before != PreTokenizer::bert &&
                  parts.splitter.stages().empty() && !(o.metaspace && o.replaces),
              "%s: other pre-tokenizers beside U+2581 for spaces are not supported", file);
        check(after.fallback == o.byte_fallback || !has_decoder,
              "%s: model.byte_fallback and the decoder ByteFallback must come together", file);
        check(!parts.ignore_merges, "%s: model.ignore_merges is not supported with U+2581 for spaces", file);
        return;
    }
    check(!o.byte_fallback && !o.prepends,
          "%s: byte fallback needs a normalizer or pre-tokenizer that turns spaces to U+2581", file);
    check(before == PreTokenizer::bytes && (after.bytes || !has_decoder) && !after.words && !after.spaces,
          "%s: BPE is supported byte-level (a ByteLevel stage) or with U+2581 for spaces; the pre-tokenizer "
          "has no ByteLevel stage",
          file);
    check(parts.unknown.empty() || !o.fuse_unknown, "%s: model.fuse_unk: not supported byte-level", file);
    o = {};
}

} // namespace

void read_stages(JsonNode root, TokenizerParts& parts) {
    read_normalizer(root["normalizer"], parts);
    PreTokenizer before = read_pre_tokenizer(root["pre_tokenizer"], parts);
    Decoder after;
    read_decoder(root["decoder"], parts, after);
    check_kind(parts.source, before, after, !root["decoder"].null(), parts);
    read_post_processor(root["post_processor"], parts);
}

} // namespace nvl
