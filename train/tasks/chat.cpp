#include "train/tasks/chat.h"

#include "data/text/documents.h"
#include "engine/base/check.h"
#include "engine/base/rng.h"

namespace nvl {

std::vector<std::string> task_words(const std::string& path) {
    std::vector<std::string> texts;
    for (Document& d : read_documents({path})) texts.push_back(std::move(d.text));
    return common_words(texts, 4000);
}

// Spelling and counting want words: the most frequent ones of a corpus.
static std::vector<std::string> words_of(const TrainConfig& c) {
    check(!c.words_path.empty(), "tasks.words_path: name a text from which words to spell are taken");
    std::vector<std::string> words = task_words(c.words_path);
    check(words.size() >= 16, "tasks.words_path: %s has only %zu words of 3 to 10 letters",
          c.words_path.c_str(), words.size());
    return words;
}

std::vector<std::pair<std::unique_ptr<Task>, int64_t>> chat_tasks(const TrainConfig& c) {
    TaskSources sources{.words = {}, .identity = {}, .model_name = c.model_name};
    if (c.spelling > 0 || c.letter_count > 0) sources.words = words_of(c);
    if (c.identity > 0) {
        check(!c.identity_path.empty(),
              "tasks.identity_path: name the .jsonl of conversations about the model");
        sources.identity = read_conversations({c.identity_path});
    }
    const std::pair<const char*, int64_t> counts[] = {{"identity", c.identity},
                                                      {"spelling", c.spelling},
                                                      {"letter_count", c.letter_count},
                                                      {"arithmetic", c.arithmetic}};
    std::vector<std::pair<std::unique_ptr<Task>, int64_t>> tasks;
    for (auto& [name, count] : counts)
        if (count > 0) tasks.emplace_back(make_task(name, sources, uint64_t(c.seed)), count);
    return tasks;
}

// One to `most` of the conversations, in shuffled order, one after the other as one: a chat goes on after an
// answer.
static std::vector<Conversation> joined(std::vector<Conversation> all, int64_t most, uint64_t seed) {
    if (most <= 1) return all;
    std::vector<Conversation> result;
    Random random(seed, "turns");
    for (size_t i = 0; i < all.size();) {
        Conversation c = std::move(all[permuted(i, all.size(), seed)]);
        uint64_t more = random.below(i++, uint64_t(most));
        for (; more && i < all.size(); more--, i++) {
            Conversation& next = all[permuted(i, all.size(), seed)];
            if (next.messages.front().role == Message::system) break; // only the first turn may set the scene
            c.messages.insert(c.messages.end(), next.messages.begin(), next.messages.end());
        }
        result.push_back(std::move(c));
    }
    return result;
}

std::vector<Conversation> chat_mixture(const TrainConfig& c) {
    std::vector<Conversation> all;
    if (!c.data_path.empty()) all = read_conversations(c.data_path);
    for (auto& [task, count] : chat_tasks(c))
        for (Conversation& conversation : task_conversations(*task, count))
            all.push_back(std::move(conversation));
    return joined(std::move(all), c.turns, uint64_t(c.seed));
}

} // namespace nvl
