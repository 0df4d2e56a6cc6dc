// Our tokenizer as what shards and templates ask for. The tokenizer must outlive what is made from it.
#pragma once
#include "data/chat/template.h"
#include "data/pack/shards.h"
#include "data/tokenizer/tokenizer.h"

namespace nvl {

inline Encode encoder(const Tokenizer& tokenizer) {
    return [&tokenizer](std::string_view text) { return tokenizer.encode(text); };
}
inline TokenizerId tokenizer_id(const Tokenizer& tokenizer) { return {tokenizer.hash(), tokenizer.size()}; }
inline ChatTokenizer chat_tokenizer(const Tokenizer& tokenizer) {
    return {.encode = encoder(tokenizer),
            .decode = [&tokenizer](std::span<const int32_t> ids) { return tokenizer.decode(ids); },
            .special = [&tokenizer](std::string_view name) { return int32_t(tokenizer.find(name)); }};
}

} // namespace nvl
