// How a model wants conversations written, found out from its tokenizer.
//
//   ours     <|bos|><|user_start|>U<|user_end|><|assistant_start|>A<|assistant_end|>...
//   (data/chat/template.h) ChatML   <|im_start|>role\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n
//   SmolLM2, Qwen
//
// ChatML is recognised in the model's Jinja chat_template, whose default system message is taken over; any
// other template is an error. What people say is encoded as ordinary text, so that no text becomes a special
// token.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat/template.h"
#include "data/tokenizer/tokenizer.h"

namespace nvl {

class ChatFormat {
public:
    /// The tokenizer must outlive it. An error that lists the formats of this build if it has none of them.
    explicit ChatFormat(const Tokenizer& tokenizer);

    const char* name() const { return ours_ ? "nanochat_vl" : "ChatML"; }
    /// What the assistant is to continue: ends with the header of its turn.
    std::vector<int32_t> prompt(const Conversation& conversation) const;
    /// What a running chat appends after an answer that ended by itself: the rest of that turn, one more of
    /// the user, and the header of the next answer. `ended`: the answer has its end token already.
    std::vector<int32_t> next_turn(std::string_view user_text, bool ended) const;
    /// The tokens that end an answer.
    std::vector<int32_t> stop_ids() const;
    /// Ordinary text.
    std::vector<int32_t> encode(std::string_view text) const { return tokenizer_->encode(text); }
    /// An answer as later turns see it: templates of thinking models leave out all up to </think>.
    std::string in_history(const std::string& answer) const;
    /// The assistant's turn from generated ids.
    Message parse_answer(std::span<const int32_t> ids) const;
    /// For Request::tools; null where the format has no calculator.
    const ChatTemplate* tools() const { return ours_ ? &*ours_ : nullptr; }
    /// What stands in front of a conversation without a system message; empty: nothing.
    const std::string& default_system() const { return system_; }

private:
    void append(std::vector<int32_t>& ids, const char* role, std::string_view text) const;
    const Tokenizer* tokenizer_;
    std::optional<ChatTemplate> ours_;
    int32_t im_start_ = -1, im_end_ = -1;
    std::string system_;
    bool thinks_ = false;
};

/// The default system message in a ChatML template's text: the literal between "<|im_start|>system\n" and
/// "<|im_end|>", escapes resolved; empty if there is none.
std::string default_system_of(std::string_view chat_template);

} // namespace nvl
