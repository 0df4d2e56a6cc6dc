#include "data/chat/conversation.h"

#include <nlohmann/json.hpp>

#include "engine/base/check.h"

namespace nvl {
using nlohmann::json;

namespace {
constexpr const char* ROLES[] = {"system", "user", "assistant"};
constexpr const char* KINDS[] = {"text", "python", "python_output"};

/// The index of object[key] among three names, or an error that lists them.
int one_of(const json& object, const char* key, const char* const (&names)[3], const std::string& where) {
    check(object.is_object() && object.contains(key) && object[key].is_string(),
          "%s: expected an object with \"%s\"", where.c_str(), key);
    auto value = object[key].get<std::string>();
    for (int i = 0; i < 3; i++)
        if (value == names[i]) return i;
    fail("%s: \"%s\" must be %s, %s or %s, found \"%.40s\"", where.c_str(), key, names[0], names[1], names[2],
         value.c_str());
}
Message parse_message(const json& m, const std::string& where) {
    Message message;
    message.role = Message::Role(one_of(m, "role", ROLES, where));
    check(m.contains("content"), "%s: a message has no \"content\"", where.c_str());
    const json& content = m["content"];
    if (content.is_string()) {
        message.parts.push_back({Part::text, content.get<std::string>()});
        return message;
    }
    check(content.is_array(), "%s: \"content\" must be a string or a list of parts", where.c_str());
    for (const json& p : content) {
        auto kind = Part::Kind(one_of(p, "type", KINDS, where));
        check(p.contains("text") && p["text"].is_string(), "%s: a part has no \"text\"", where.c_str());
        message.parts.push_back({kind, p["text"].get<std::string>()});
    }
    return message;
}
} // namespace

Message user_says(std::string text) { return {Message::user, {{Part::text, std::move(text)}}}; }
Message assistant_says(std::string text) { return {Message::assistant, {{Part::text, std::move(text)}}}; }

void validate(const Conversation& conversation, const std::string& where) {
    const auto& messages = conversation.messages;
    size_t first = !messages.empty() && messages[0].role == Message::system;
    check(messages.size() > first, "%s: a conversation needs at least one user message", where.c_str());
    for (size_t i = 0; i < messages.size(); i++) {
        const Message& m = messages[i];
        if (i >= first) {
            auto expected = (i - first) % 2 ? Message::assistant : Message::user;
            check(m.role == expected,
                  "%s: message %zu must be from the %s (roles alternate, the user first), found %s",
                  where.c_str(), i + 1, ROLES[expected], ROLES[m.role]);
        }
        check(!m.parts.empty(), "%s: message %zu is empty", where.c_str(), i + 1);
        for (const Part& p : m.parts)
            check(p.kind == Part::text || m.role == Message::assistant,
                  "%s: message %zu: %s parts belong to the assistant", where.c_str(), i + 1, KINDS[p.kind]);
    }
}

Conversation parse_conversation(const json& j, const std::string& where) {
    const json& messages = j.is_object() && j.contains("messages") ? j["messages"] : j;
    check(messages.is_array(), "%s: \"messages\" must be a list", where.c_str());
    Conversation conversation;
    for (const json& m : messages) conversation.messages.push_back(parse_message(m, where));
    validate(conversation, where);
    return conversation;
}

json to_json(const Conversation& conversation) {
    json messages = json::array();
    for (const Message& m : conversation.messages) {
        json content;
        if (m.parts.size() == 1 && m.parts[0].kind == Part::text)
            content = m.parts[0].content;
        else
            for (const Part& p : m.parts) content.push_back({{"type", KINDS[p.kind]}, {"text", p.content}});
        messages.push_back({{"role", ROLES[m.role]}, {"content", content}});
    }
    return {{"messages", messages}};
}

std::string text_of(const Message& message) {
    std::string text;
    for (const Part& p : message.parts)
        if (p.kind == Part::text) text += p.content;
    return text;
}

} // namespace nvl
