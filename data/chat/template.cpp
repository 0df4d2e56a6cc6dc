#include "data/chat/template.h"

#include "engine/base/check.h"

namespace nvl {

namespace {
void append(ChatTokens& out, int32_t id, bool learned) {
    out.ids.push_back(id);
    out.mask.push_back(learned);
}
void append(ChatTokens& out, const std::vector<int32_t>& ids, bool learned) {
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.mask.insert(out.mask.end(), ids.size(), learned);
}
/// The messages without a system message: its text goes in front of the first user's.
std::vector<Message> merged(const Conversation& conversation) {
    std::vector<Message> messages = conversation.messages;
    if (messages[0].role == Message::system) {
        messages[1] = user_says(text_of(messages[0]) + "\n\n" + text_of(messages[1]));
        messages.erase(messages.begin());
    }
    return messages;
}
} // namespace

ChatTemplate::ChatTemplate(ChatTokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {
    int32_t* ids[] = {&bos,          &user_start, &user_end,     &assistant_start, &assistant_end,
                      &python_start, &python_end, &output_start, &output_end};
    for (size_t i = 0; i < std::size(ids); i++) {
        *ids[i] = tokenizer_.special(CHAT_SPECIALS[i]);
        check(*ids[i] >= 0, "chat template: the tokenizer has no %s; train one with the chat tokens",
              CHAT_SPECIALS[i]);
    }
}

ChatTokens ChatTemplate::render(const Conversation& conversation, int64_t max_tokens) const {
    validate(conversation, "chat template");
    ChatTokens out;
    append(out, bos, false);
    for (const Message& m : merged(conversation)) {
        bool assistant = m.role == Message::assistant;
        append(out, assistant ? assistant_start : user_start, false);
        for (const Part& p : m.parts) {
            bool learned = assistant && p.kind != Part::python_output;
            if (p.kind == Part::python) append(out, python_start, true);
            if (p.kind == Part::python_output) append(out, output_start, false);
            append(out, tokenizer_.encode(p.content), learned);
            if (p.kind == Part::python) append(out, python_end, true);
            if (p.kind == Part::python_output) append(out, output_end, false);
        }
        append(out, assistant ? assistant_end : user_end, assistant);
    }
    if (max_tokens > 0 && int64_t(out.ids.size()) > max_tokens) {
        out.ids.resize(size_t(max_tokens));
        out.mask.resize(size_t(max_tokens));
    }
    return out;
}

std::vector<int32_t> ChatTemplate::prompt(const Conversation& conversation) const {
    Conversation question = conversation;
    if (!question.messages.empty() && question.messages.back().role == Message::assistant)
        question.messages.pop_back();
    std::vector<int32_t> ids = render(question).ids;
    ids.push_back(assistant_start);
    return ids;
}

std::vector<int32_t> ChatTemplate::next_turn(std::string_view user_text) const {
    std::vector<int32_t> ids = tokenizer_.encode(user_text);
    ids.insert(ids.begin(), user_start);
    ids.push_back(user_end);
    ids.push_back(assistant_start);
    return ids;
}

Message ChatTemplate::parse_answer(std::span<const int32_t> ids) const {
    Message message{Message::assistant, {}};
    std::vector<int32_t> run;
    auto kind = Part::text;
    auto close = [&](Part::Kind next) {
        if (!run.empty() || kind != Part::text) message.parts.push_back({kind, tokenizer_.decode(run)});
        run.clear(), kind = next;
    };
    for (int32_t id : ids) {
        if (ends_turn(id)) break;
        if (id == python_start)
            close(Part::python);
        else if (id == output_start)
            close(Part::python_output);
        else if (id == python_end || id == output_end)
            close(Part::text);
        else if (id != user_start && id != user_end && id != assistant_start)
            run.push_back(id);
    }
    close(Part::text);
    if (message.parts.empty()) message.parts.push_back({Part::text, ""});
    return message;
}

} // namespace nvl
