// Fine-tuning on conversations: the mixture, and the tasks that can be graded afterwards.
#pragma once
#include "data/chat/tasks.h"
#include "train/loop/config.h"

namespace nvl {

/// The words that tasks spell and count: the most frequent ones of a text.
std::vector<std::string> task_words(const std::string& path);

/// The tasks that the config asks for (a count above 0), each with its count.
std::vector<std::pair<std::unique_ptr<Task>, int64_t>> chat_tasks(const TrainConfig& config);

/// Conversations of data.path (none if it is empty) and `count` examples of every task.
std::vector<Conversation> chat_mixture(const TrainConfig& config);

} // namespace nvl
