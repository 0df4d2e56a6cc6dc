#include "infer/chat_session.h"

#include <algorithm>

namespace nvl {

ChatSession::ChatSession(Generator& generator, Engine& engine, const ChatFormat& format, ChatOptions o)
    : options(std::move(o)), generator_(generator), engine_(engine), format_(format),
      sequence_(engine.open()) {}
ChatSession::~ChatSession() { engine_.close(sequence_); }

void ChatSession::clear() {
    turns_.clear(), ids_.clear();
    engine_.truncate(sequence_, 0);
}

// The conversation from a turn on, with the ids that were generated: to spell an answer again might split it
// into other tokens.
std::vector<int32_t> ChatSession::render(size_t first_turn, std::string_view text) const {
    Conversation opening;
    if (!options.system.empty())
        opening.messages.push_back({Message::system, {{Part::text, options.system}}});
    bool alone = first_turn == turns_.size();
    opening.messages.push_back(user_says(alone ? std::string(text) : turns_[first_turn].user));
    std::vector<int32_t> ids = format_.prompt(opening);
    for (size_t t = first_turn; t < turns_.size(); t++) {
        ids.insert(ids.end(), turns_[t].answer.begin(), turns_[t].answer.end());
        bool last = t + 1 == turns_.size();
        auto next = format_.next_turn(last ? text : turns_[t + 1].user, turns_[t].ended);
        ids.insert(ids.end(), next.begin(), next.end());
    }
    return ids;
}

// Keeps of the cache what the prompt begins with, all but its last token at most.
void ChatSession::share_cache(const std::vector<int32_t>& prompt) {
    auto cached = size_t(engine_.length(sequence_));
    size_t most = std::min({cached, prompt.size() - 1, ids_.size()}), same = 0;
    while (same < most && ids_[same] == prompt[same]) same++;
    engine_.truncate(sequence_, int64_t(same));
}

ChatAnswer ChatSession::say(std::string_view text, const OnText& on_text) {
    int64_t room = engine_.room(), limit = room - std::min(options.max_tokens, room / 4);
    size_t first = 0;
    std::vector<int32_t> prompt = render(first, text);
    // Down to half, so that what is left need not be fed anew at every turn.
    auto size = [&] { return int64_t(prompt.size()); };
    if (size() > limit)
        while (first < turns_.size() && (size() > limit || (size() > room / 2 && first + 1 < turns_.size())))
            prompt = render(++first, text);
    check(int64_t(prompt.size()) < room,
          "the message is too long: %zu tokens with its frame, the context holds %ld; shorten it",
          prompt.size(), room);
    share_cache(prompt);
    turns_.erase(turns_.begin(), turns_.begin() + long(first));
    ids_ = prompt;
    ChatAnswer answer;
    answer.dropped_turns = int64_t(first);
    answer.prompt_tokens = int64_t(prompt.size());
    answer.fed = answer.prompt_tokens - engine_.length(sequence_);
    Request r;
    r.prompt = std::move(prompt);
    r.sampling = options.sampling, r.seed = options.seed, r.max_tokens = options.max_tokens;
    r.stop = options.stop, r.stop_ids = format_.stop_ids(), r.tools = format_.tools();
    r.sequence = sequence_;
    answer.generation = generator_.run(r, on_text);
    const auto& ids = answer.generation.ids;
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    const auto& stops = r.stop_ids;
    bool ended = !ids.empty() && ids.back() == stops[0];
    std::vector<int32_t> said(ids.begin(), ids.end());
    // Any other end (of the text, a limit, the user) is closed with the turn's own token, and what a stop
    // string hid was not said.
    if (!ended && answer.generation.finish == Finish::stop) {
        if (std::find(stops.begin(), stops.end(), said.back()) != stops.end())
            said.pop_back();
        else
            said = format_.encode(answer.generation.text);
    }
    std::string kept = format_.in_history(answer.generation.text);
    if (kept != answer.generation.text) said = format_.encode(kept), ended = false;
    turns_.push_back({std::string(text), std::move(said), ended});
    return answer;
}

} // namespace nvl
