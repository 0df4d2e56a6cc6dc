#include "train/tasks/chat.h"

#include "data/text/documents.h"
#include "engine/base/check.h"
#include "engine/base/rng.h"

namespace nvl {

// Spelling and counting want words: the most frequent ones of a corpus.
static std::vector<std::string> words_of(const TrainConfig& c) {
    check(!c.words_path.empty(), "tasks.words_path: name a text from which words to spell are taken");
    std::vector<std::string> texts;
    for (Document& d : read_documents({c.words_path})) texts.push_back(std::move(d.text));
    std::vector<std::string> words = common_words(texts, 4000);
    check(words.size() >= 16, "tasks.words_path: %s has only %zu words of 3 to 10 letters",
          c.words_path.c_str(), words.size());
    return words;
}

std::vector<std::pair<std::unique_ptr<Task>, int64_t>> chat_tasks(const TrainConfig& c) {
    std::vector<std::pair<std::unique_ptr<Task>, int64_t>> tasks;
    auto seed = uint64_t(c.seed);
    std::vector<std::string> words;
    if (c.spelling > 0 || c.letter_count > 0) words = words_of(c);
    if (c.identity > 0) {
        check(!c.identity_path.empty(),
              "tasks.identity_path: name the .jsonl of conversations about the model");
        tasks.emplace_back(identity_task(read_conversations({c.identity_path}), c.model_name, seed),
                           c.identity);
    }
    if (c.spelling > 0) tasks.emplace_back(spelling_task(words, seed), c.spelling);
    if (c.letter_count > 0) tasks.emplace_back(letter_count_task(words, seed), c.letter_count);
    if (c.arithmetic > 0) tasks.emplace_back(arithmetic_task(seed), c.arithmetic);
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
