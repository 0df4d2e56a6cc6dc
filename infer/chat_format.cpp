#include "infer/chat_format.h"

#include <algorithm>

#include "data/chat/with_tokenizer.h"
#include "engine/base/check.h"

namespace nvl {

std::string default_system_of(std::string_view text) {
    constexpr std::string_view OPEN = "<|im_start|>system", CLOSE = "<|im_end|>";
    for (size_t at = text.find(OPEN); at != text.npos; at = text.find(OPEN, at + 1)) {
        size_t from = at + OPEN.size();
        if (text.substr(from, 2) == "\\n")
            from += 2;
        else if (text.substr(from, 1) == "\n")
            from += 1;
        else
            continue;
        size_t to = text.find(CLOSE, from);
        if (to == text.npos) return "";
        std::string_view raw = text.substr(from, to - from);
        std::string value;
        bool literal = true; // a quote or a tag: the text comes from the conversation
        for (size_t i = 0; i < raw.size() && literal; i++) {
            if (raw[i] == '\\' && i + 1 < raw.size()) {
                char next = raw[++i];
                value += next == 'n' ? '\n' : next == 't' ? '\t' : next;
            } else if (raw[i] == '\'' || raw[i] == '"' || raw[i] == '{' || raw[i] == '}')
                literal = false;
            else
                value += raw[i];
        }
        if (literal && !value.empty()) return value;
    }
    return "";
}

ChatFormat::ChatFormat(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {
    if (std::all_of(std::begin(CHAT_SPECIALS), std::end(CHAT_SPECIALS),
                    [&](const char* s) { return tokenizer.find(s) >= 0; })) {
        ours_.emplace(chat_tokenizer(tokenizer));
        return;
    }
    const std::string& text = tokenizer.chat_template();
    const char* formats = "this build writes ChatML (<|im_start|>role ... <|im_end|>) and its own format "
                          "(<|user_start|> ... <|user_end|>)";
    check(!text.empty(), "%s: the model has no chat template, so it was not tuned to chat; %s",
          tokenizer.parts().source.c_str(), formats);
    im_start_ = tokenizer.find("<|im_start|>"), im_end_ = tokenizer.find("<|im_end|>");
    check(im_start_ >= 0 && im_end_ >= 0 && text.find("<|im_start|>") != text.npos &&
              text.find("<|im_end|>") != text.npos,
          "%s: a chat template of another kind; %s", tokenizer.parts().source.c_str(), formats);
    system_ = default_system_of(text);
    thinks_ = text.find("</think>") != text.npos;
}

void ChatFormat::append(std::vector<int32_t>& ids, const char* role, std::string_view text) const {
    auto body = tokenizer_->encode(std::string(role) + "\n" + std::string(text)),
         end = tokenizer_->encode("\n");
    ids.push_back(im_start_);
    ids.insert(ids.end(), body.begin(), body.end());
    ids.push_back(im_end_);
    ids.insert(ids.end(), end.begin(), end.end());
}

std::vector<int32_t> ChatFormat::prompt(const Conversation& conversation) const {
    if (ours_) return ours_->prompt(conversation);
    validate(conversation, "chat");
    std::vector<int32_t> ids;
    const auto& messages = conversation.messages;
    if (messages[0].role != Message::system && !system_.empty()) append(ids, "system", system_);
    size_t n = messages.size() - (messages.back().role == Message::assistant);
    for (size_t i = 0; i < n; i++) {
        const Message& m = messages[i];
        for (const Part& p : m.parts)
            check(p.kind == Part::text,
                  "chat: ChatML has no calculator; a message has a part of another kind");
        append(ids,
               m.role == Message::system ? "system"
               : m.role == Message::user ? "user"
                                         : "assistant",
               m.role == Message::assistant ? in_history(text_of(m)) : text_of(m));
    }
    auto header = tokenizer_->encode("assistant\n");
    ids.push_back(im_start_);
    ids.insert(ids.end(), header.begin(), header.end());
    return ids;
}

std::string ChatFormat::in_history(const std::string& answer) const {
    constexpr std::string_view END = "</think>";
    size_t at = thinks_ ? answer.rfind(END) : answer.npos;
    if (at == answer.npos) return answer;
    size_t from = answer.find_first_not_of('\n', at + END.size());
    return from == answer.npos ? "" : answer.substr(from);
}

std::vector<int32_t> ChatFormat::next_turn(std::string_view user_text, bool ended) const {
    std::vector<int32_t> ids;
    if (!ended) ids.push_back(ours_ ? ours_->assistant_end : im_end_);
    auto add = [&](const std::vector<int32_t>& more) { ids.insert(ids.end(), more.begin(), more.end()); };
    if (ours_) {
        add(ours_->next_turn(user_text));
        return ids;
    }
    add(tokenizer_->encode("\n"));
    append(ids, "user", user_text);
    ids.push_back(im_start_);
    add(tokenizer_->encode("assistant\n"));
    return ids;
}

std::vector<int32_t> ChatFormat::stop_ids() const {
    if (ours_) return {ours_->assistant_end, ours_->bos};
    std::vector<int32_t> ids{im_end_};
    if (tokenizer_->eos() >= 0 && tokenizer_->eos() != im_end_) ids.push_back(tokenizer_->eos());
    return ids;
}

Message ChatFormat::parse_answer(std::span<const int32_t> ids) const {
    if (ours_) return ours_->parse_answer(ids);
    auto stops = stop_ids();
    auto end = std::find_first_of(ids.begin(), ids.end(), stops.begin(), stops.end());
    return assistant_says(tokenizer_->decode(ids.subspan(0, size_t(end - ids.begin())), true));
}

} // namespace nvl
