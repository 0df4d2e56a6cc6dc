// The chat template: conversations as token ids with a loss mask.
//
//   <|bos|> <|user_start|> U <|user_end|> <|assistant_start|> A <|assistant_end|> <|user_start|> ...
//
// Inside an assistant's turn a call of the calculator is
//
//   <|python_start|> expression <|python_end|> <|output_start|> result <|output_end|>
//
// A system message goes in front of the first user's text, with an empty line between. Learned (mask 1) is
// what the assistant says: its text, its calls, and <|assistant_end|>; not the headers, the user, or the
// tool's output. Content is encoded as ordinary text: text that looks like a special token never becomes one.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat/conversation.h"

namespace nvl {

/// The special tokens, in the order in which our tokenizers number them.
inline constexpr const char* CHAT_SPECIALS[] = {
    "<|bos|>",          "<|user_start|>", "<|user_end|>",     "<|assistant_start|>", "<|assistant_end|>",
    "<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"};

/// What the template needs of a tokenizer.
struct ChatTokenizer {
    std::function<std::vector<int32_t>(std::string_view)> encode; // ordinary text
    std::function<std::string(std::span<const int32_t>)> decode;
    std::function<int32_t(std::string_view)> special; // id of a special token by name, -1 if there is none
};

struct ChatTokens {
    std::vector<int32_t> ids;
    std::vector<uint8_t> mask; // 1 where the token is to be learned
};

class ChatTemplate {
public:
    /// Throws Error when one of the special tokens is missing.
    explicit ChatTemplate(ChatTokenizer tokenizer);

    /// The whole conversation; cut after max_tokens if that is not 0.
    ChatTokens render(const Conversation& conversation, int64_t max_tokens = 0) const;
    /// What the assistant is to continue: ends with <|assistant_start|>. The conversation ends with a user's
    /// turn, or with an assistant's, which is left out (an example of a data set as a question).
    std::vector<int32_t> prompt(const Conversation& conversation) const;
    /// The ids of one more user turn and the header of the answer: what a running chat appends to its cache.
    std::vector<int32_t> next_turn(std::string_view user_text) const;
    /// The assistant's turn from generated ids: text, calls and outputs; ends at the first <|assistant_end|>
    /// or <|bos|>.
    Message parse_answer(std::span<const int32_t> ids) const;

    bool ends_turn(int32_t id) const { return id == assistant_end || id == bos; }
    const ChatTokenizer& tokenizer() const { return tokenizer_; }
    int32_t bos, user_start, user_end, assistant_start, assistant_end, python_start, python_end, output_start,
        output_end;

private:
    ChatTokenizer tokenizer_;
};

} // namespace nvl
