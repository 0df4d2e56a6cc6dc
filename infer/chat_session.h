// A running chat: one conversation over one sequence of the cache, which is fed what is new and nothing else.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "infer/chat_format.h"
#include "infer/generate.h"

namespace nvl {

struct ChatOptions {
    std::string system; // empty: the format's default
    SamplingParams sampling;
    uint64_t seed = 0;
    int64_t max_tokens = 512; // of an answer
    std::vector<std::string> stop;
};

struct ChatAnswer {
    Generation generation;
    int64_t fed = 0;           // tokens of the prompt that were not in the cache
    int64_t prompt_tokens = 0; // of the whole conversation
    int64_t dropped_turns = 0; // of the user, forgotten because the context was full
};

class ChatSession {
public:
    /// The engine needs a free sequence.
    ChatSession(Generator& generator, Engine& engine, const ChatFormat& format, ChatOptions options);
    ~ChatSession();
    ChatSession(const ChatSession&) = delete;

    /// The user says `text`; generates the answer. Where the context is full the oldest turns are forgotten;
    /// a text that does not fit alone is an error, and the conversation stays as it was.
    ChatAnswer say(std::string_view text, const OnText& on_text = nullptr);
    /// Forgets the conversation.
    void clear();
    const std::vector<int32_t>& ids() const { return ids_; }
    ChatOptions options;

private:
    struct Turn {
        std::string user;
        std::vector<int32_t> answer;
        bool ended; // the answer has its end token
    };
    std::vector<int32_t> render(size_t first_turn, std::string_view text) const;
    void share_cache(const std::vector<int32_t>& prompt);

    Generator& generator_;
    Engine& engine_;
    const ChatFormat& format_;
    int sequence_;
    std::vector<Turn> turns_;
    std::vector<int32_t> ids_; // of the conversation; the cache holds its beginning
};

} // namespace nvl
