// Tokenizers from the arrays of a GGUF file, and the one way in from any model path.
#include <algorithm>

#include "data/tokenizer/tokenizer.h"
#include "engine/base/check.h"
#include "engine/io/file.h"
#include "engine/io/gguf.h"
#include "engine/io/printable.h"

namespace nvl {

namespace {

// llama.cpp's names of pre-tokenizers and what they mean.
struct Pre {
    const char *name, *pattern;
    bool ignore_merges;
};
constexpr Pre KNOWN[] = {
    {"gpt2", "gpt2", false},
    {"gpt-2", "gpt2", false},
    {"llama-bpe", "gpt4-3", true},
    {"llama3", "gpt4-3", true},
    {"llama-v3", "gpt4-3", true},
    {"qwen2", "gpt4-1", false},
    {"deepseek-r1-qwen", "gpt4-1", false},
    {"smollm", "smollm", false},
    {"starcoder", "smollm", false},
    {"refact", "smollm", false},
    {"command-r", "smollm", false},
    {"nanochat", "gpt4-2", false},
};

const Pre& find_pre(const std::string& name, const std::string& source) {
    std::string known;
    for (auto& p : KNOWN) {
        if (p.name == name) return p;
        known += (known.empty() ? "" : ", ") + std::string(p.name);
    }
    fail("%s: the pre-tokenizer '%s' is not supported (known: %s)", source.c_str(), printable(name).c_str(),
         known.c_str());
}

void parse_merges(const std::vector<std::string>& merges, TokenizerParts& parts) {
    std::unordered_map<std::string_view, int> id_of;
    for (size_t i = 0; i < parts.vocabulary.size(); i++)
        if (!parts.vocabulary[i].empty()) id_of.emplace(parts.vocabulary[i], int(i));
    for (size_t i = 0; i < merges.size(); i++) {
        std::string_view text = merges[i];
        size_t space = text.find(' ', 1); // a piece is never empty
        check(space != text.npos && space + 1 < text.size(),
              "%s: merge %zu: expected two pieces with a space between them", parts.source.c_str(), i);
        auto left = id_of.find(text.substr(0, space)), right = id_of.find(text.substr(space + 1));
        check(left != id_of.end() && right != id_of.end(),
              "%s: merge %zu names a piece that is not in the vocabulary: '%s'", parts.source.c_str(), i,
              printable(merges[i]).c_str());
        parts.merges.emplace_back(left->second, right->second);
    }
}

enum TokenType { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

// The added tokens, the frame, and what else both kinds of vocabularies have.
TokenizerParts parts_of(const std::vector<std::string>& tokens, const std::vector<int>& types, int bos,
                        int eos, bool add_bos, bool add_eos, const std::string& chat_template,
                        const std::string& source) {
    check(types.empty() || types.size() == tokens.size(), "%s: %zu tokens, but %zu token types",
          source.c_str(), tokens.size(), types.size());
    TokenizerParts parts;
    parts.source = source;
    parts.vocabulary = tokens;
    parts.chat_template = chat_template;
    auto type = [&](size_t i) { return types.empty() ? int(NORMAL) : types[i]; };
    for (size_t i = 0; i < tokens.size(); i++) {
        bool frame = int(i) == bos || int(i) == eos; // special, whatever their type says
        bool special = type(i) == UNKNOWN || type(i) == CONTROL || frame;
        if (!special && type(i) != USER_DEFINED) continue;
        check(!tokens[i].empty(), "%s: the special token %zu is empty", source.c_str(), i);
        parts.added.push_back({.id = int(i), .content = tokens[i], .special = special});
    }
    auto name = [&](int id, const char* role) {
        check(id >= -1 && id < int(tokens.size()), "%s: the %s id %d is outside the vocabulary of %zu",
              source.c_str(), role, id, tokens.size());
        return id < 0 ? std::string() : tokens[size_t(id)];
    };
    parts.bos = name(bos, "bos"), parts.eos = name(eos, "eos");
    check(!add_bos || bos >= 0, "%s: asks for a bos token but names none", source.c_str());
    check(!add_eos || eos >= 0, "%s: asks for an eos token but names none", source.c_str());
    if (add_bos) parts.prefix = {bos};
    if (add_eos) parts.suffix = {eos};
    return parts;
}

} // namespace

Tokenizer Tokenizer::from_vocabulary(const std::vector<std::string>& tokens,
                                     const std::vector<std::string>& merges, const std::vector<int>& types,
                                     const std::string& pre, int bos, int eos, bool add_bos, bool add_eos,
                                     const std::string& chat_template, const std::string& source) {
    auto known = find_pre(pre, source);
    TokenizerParts parts = parts_of(tokens, types, bos, eos, add_bos, add_eos, chat_template, source);
    parts.splitter = Splitter::named(known.pattern);
    parts.ignore_merges = known.ignore_merges;
    parse_merges(merges, parts);
    return Tokenizer(std::move(parts));
}

Tokenizer Tokenizer::from_scores(const std::vector<std::string>& tokens, std::vector<float> scores,
                                 const std::vector<int>& types, bool space_in_front, int bos, int eos,
                                 bool add_bos, bool add_eos, const std::string& chat_template,
                                 const std::string& source) {
    check(!scores.empty() && scores.size() == tokens.size(), "%s: %zu tokens, but %zu scores", source.c_str(),
          tokens.size(), scores.size());
    TokenizerParts parts = parts_of(tokens, types, bos, eos, add_bos, add_eos, chat_template, source);
    parts.algorithm = Algorithm::piece_bpe;
    auto& o = parts.pieces;
    o.scores = std::move(scores);
    o.replaces = true, o.prepends = o.drops_first_space = space_in_front;
    for (size_t i = 0; i < types.size(); i++) {
        if (types[i] == UNKNOWN && parts.unknown.empty()) parts.unknown = tokens[i];
        if (types[i] != BYTE) continue;
        check(byte_of_piece(tokens[i]) >= 0, "%s: the byte token %zu is '%s'; expected '<0x41>' or the like",
              source.c_str(), i, printable(tokens[i]).c_str());
        o.byte_fallback = true;
    }
    return Tokenizer(std::move(parts));
}

static Tokenizer from_gguf(const std::string& path) {
    Gguf file(path);
    std::string model = file.string("tokenizer.ggml.model");
    check(model == "gpt2" || model == "llama",
          "%s: only byte-level BPE ('gpt2') and SentencePiece ('llama') vocabularies are supported, found "
          "'%s'",
          path.c_str(), printable(model).c_str());
    auto id = [&](const char* key) {
        int64_t v = file.find_integer(key).value_or(-1);
        check(v >= -1 && v <= INT32_MAX, "%s: %s: %ld is not an id", path.c_str(), key, long(v));
        return int(v);
    };
    std::vector<int> types;
    for (int64_t t : file.find_integers("tokenizer.ggml.token_type").value_or(std::vector<int64_t>())) {
        check(t >= 1 && t <= 6, "%s: tokenizer.ggml.token_type: expected 1 to 6, found %ld", path.c_str(),
              long(t));
        types.push_back(int(t));
    }
    auto tokens = file.strings("tokenizer.ggml.tokens");
    int bos = id("tokenizer.ggml.bos_token_id"), eos = id("tokenizer.ggml.eos_token_id");
    auto flag = [&](const char* key, bool other) { return file.find_boolean(key).value_or(other); };
    std::string chat_template = file.find_string("tokenizer.chat_template").value_or("");
    bool add_eos = flag("tokenizer.ggml.add_eos_token", false);
    if (model == "gpt2")
        return Tokenizer::from_vocabulary(tokens, file.strings("tokenizer.ggml.merges"), types,
                                          file.find_string("tokenizer.ggml.pre").value_or(""), bos, eos,
                                          flag("tokenizer.ggml.add_bos_token", false), add_eos, chat_template,
                                          path);
    auto scores = file.numbers("tokenizer.ggml.scores");
    return Tokenizer::from_scores(tokens, std::vector<float>(scores.begin(), scores.end()), types,
                                  flag("tokenizer.ggml.add_space_prefix", true), bos, eos,
                                  flag("tokenizer.ggml.add_bos_token", bos >= 0), add_eos, chat_template,
                                  path);
}

Tokenizer load_tokenizer(const std::string& path) {
    check(exists(path),
          "%s: no such file or folder; expected a model folder with tokenizer.json, or a GGUF file",
          path.c_str());
    if (is_directory(path)) {
        bool json = exists(path + "/tokenizer.json");
        check(json || exists(path + "/vocab.txt"), "%s: no tokenizer.json in this folder", path.c_str());
        if (!json) return Tokenizer::from_vocab_txt(path);
        return Tokenizer::from_hf(path);
    }
    return path.ends_with(".gguf") ? from_gguf(path) : Tokenizer::from_hf(path);
}

} // namespace nvl
