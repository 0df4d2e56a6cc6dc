// Small tasks whose answers can be checked: made up without end, with a held-out part that training never
// sees.
//
//   spelling       Spell the word "apple".                       a p p l e
//   letter_count   How many times does "p" occur in "apple"?     [("apple").count("p")][2] "p" occurs 2 times
//   in "apple". arithmetic     What is 23 + 45?                              [23+45][68] 23 + 45 = 68
//   identity       Who are you?                                  I am nanochat_vl, ...     (from a file)
//
// An example is a function of (seed, split, index). The split is decided by what is asked, a word or a pair
// of numbers, so that no question of the test split is ever in the training split.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat/conversation.h"
#include "data/chat/template.h"
#include "data/pack/shards.h"

namespace nvl {

enum class Split { train, test };

struct TaskExample {
    Conversation conversation; // the question and the answer to learn
    std::string answer;        // what is asked for, in its shortest form
};

class Task {
public:
    virtual ~Task() = default;
    virtual std::string name() const = 0;
    virtual TaskExample example(Split split, uint64_t index) const = 0;
    /// Whether the text of an answer (its text parts, without calls and outputs) is right.
    virtual bool grade(const TaskExample& example, std::string_view answer_text) const = 0;
    /// What the best constant answer scores on the first n examples of the test split: the mark to beat.
    virtual double baseline(int64_t n = 500) const;
};

std::unique_ptr<Task> spelling_task(const std::vector<std::string>& words, uint64_t seed);
std::unique_ptr<Task> letter_count_task(const std::vector<std::string>& words, uint64_t seed);
std::unique_ptr<Task> arithmetic_task(uint64_t seed);
/// Questions about the model itself. An answer is right when it says `model_name`; one question in eight is
/// held out. The baseline is 0: a model that was not told its name cannot say it.
std::unique_ptr<Task> identity_task(const std::vector<Conversation>& conversations,
                                    const std::string& model_name, uint64_t seed);

/// What tasks are made from.
struct TaskSources {
    std::vector<std::string> words;     // spelling, letter_count
    std::vector<Conversation> identity; // identity
    std::string model_name = "nanochat_vl";
};
/// A task by its name; an unknown one is an error with the nearest name.
std::unique_ptr<Task> make_task(const std::string& name, const TaskSources& sources, uint64_t seed);

/// The most frequent words of 3 to 10 letters a-z, the most frequent first (ties in alphabetical order).
std::vector<std::string> common_words(std::span<const std::string> texts, size_t count);

/// The conversations of .jsonl files (or folders of them); a line with "text" is an error.
std::vector<Conversation> read_conversations(const std::vector<std::string>& paths);

/// `count` training examples of a task.
std::vector<Conversation> task_conversations(const Task& task, int64_t count);

/// Renders conversations with their loss mask into one shard, in order.
void write_chat_shard(const std::string& path, std::span<const Conversation> conversations,
                      const ChatTemplate& chat, const TokenizerId& tokenizer, int64_t max_tokens);

} // namespace nvl
