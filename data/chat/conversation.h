// Conversations: who says what, with calls of the calculator inside the assistant's turns.
#pragma once
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nvl {

/// A turn is a list of parts. Users and systems have text alone; the assistant may call the tool (`python`)
/// and be shown what it answered (`python_output`).
struct Part {
    enum Kind { text, python, python_output } kind = text;
    std::string content;
    bool operator==(const Part&) const = default;
};
struct Message {
    enum Role { system, user, assistant } role = user;
    std::vector<Part> parts;
    bool operator==(const Message&) const = default;
};
/// At most one system message, at the front; then user and assistant in turn, the user first.
struct Conversation {
    std::vector<Message> messages;
    bool operator==(const Conversation&) const = default;
};

Message user_says(std::string text);
Message assistant_says(std::string text);

/// Throws Error, with `where` in front, if the roles are not as Conversation says, a turn has no parts, or
/// tool parts stand outside the assistant's turns.
void validate(const Conversation& conversation, const std::string& where);

/// From {"messages": [{"role": ..., "content": string or [{"type": ..., "text": ...}]}]} or the bare array.
Conversation parse_conversation(const nlohmann::json& json, const std::string& where);
nlohmann::json to_json(const Conversation& conversation);

/// The text parts of a message, joined.
std::string text_of(const Message& message);

} // namespace nvl
