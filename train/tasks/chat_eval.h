// Grades a tuned model on tasks whose answers can be checked, on questions that training never saw.
#pragma once
#include <string>
#include <vector>

#include "data/chat/tasks.h"
#include "infer/load.h"

namespace nvl {

struct TaskScore {
    std::string task;
    int64_t examples = 0, right = 0;
    double baseline = 0; // of the best constant answer
    struct Shown {
        std::string question, answer; // calls of the calculator are shown as [expression = result]
        bool right;
    };
    std::vector<Shown> shown; // the first few
    double accuracy() const { return examples ? double(right) / double(examples) : 0; }
};

/// The first `examples` questions of the task's test split, answered greedily with the calculator at hand.
TaskScore grade_task(LoadedModel& model, const Task& task, int64_t examples, int64_t show = 6);

/// The command `evaluate chat ...`: argv[1] is its name.
int evaluate_chat(int argc, char** argv);

} // namespace nvl
