#include "train/tasks/chat_eval.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/chat/with_tokenizer.h"
#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/text.h"
#include "engine/io/file.h"
#include "infer/generate.h"
#include "train/tasks/chat.h"

namespace nvl {

static std::string shown_text(const Message& m) {
    std::string text;
    for (const Part& p : m.parts)
        text += p.kind == Part::text     ? p.content
                : p.kind == Part::python ? "[" + p.content
                                         : " = " + p.content + "] ";
    return text;
}

TaskScore grade_task(LoadedModel& model, const Task& task, int64_t examples, int64_t show) {
    constexpr int64_t ANSWER = 96, AT_ONCE = 16;
    ChatTemplate chat(chat_tokenizer(model.need_tokenizer()));
    int64_t room = std::min<int64_t>(512, model.model->dims.context);
    Engine engine(*model.model, {.dtype = model.dtype, .sequences = AT_ONCE, .tokens_per_sequence = room});
    Generator generator(engine, &model.need_tokenizer());
    std::vector<TaskExample> asked;
    std::vector<Request> requests;
    for (int64_t i = 0; i < examples; i++) {
        asked.push_back(task.example(Split::test, uint64_t(i)));
        Request r{.prompt = chat.prompt(asked.back().conversation), .max_tokens = ANSWER};
        r.sampling.temperature = 0;
        r.stop_ids = {chat.assistant_end, chat.bos};
        r.tools = &chat;
        requests.push_back(std::move(r));
    }
    std::vector<Generation> answers = generator.run(requests);
    TaskScore score{task.name(), examples, 0, task.baseline(std::max<int64_t>(examples, 500)), {}};
    for (size_t i = 0; i < answers.size(); i++) {
        Message answer = chat.parse_answer(answers[i].ids);
        bool right = task.grade(asked[i], text_of(answer));
        score.right += right;
        if (int64_t(i) < show)
            score.shown.push_back({text_of(asked[i].conversation.messages.at(0)), shown_text(answer), right});
    }
    return score;
}

int evaluate_chat(int argc, char** argv) {
    Args args("evaluate chat", "Grades a tuned model: identity, spelling, counting letters, arithmetic.");
    auto& path = args.option("model", "", "the model's folder");
    auto& words = args.option("words", "data/cache/corpus", "text whose words are spelled");
    auto& identity =
        args.option("identity", "data/chat/identity.jsonl", "conversations about the model itself");
    auto& name = args.option("name", "nanochat_vl", "what the model should call itself");
    auto& tasks =
        args.option("tasks", "identity,spelling,letter_count,arithmetic", "which, separated by commas");
    auto& examples = args.option("examples", 100, "questions of each task");
    auto& output = args.option("output", "", "also write the result to this file, as JSON");
    auto& json = args.flag("json", "print JSON");
    args.common("bf16");
    if (!args.parse(argc, argv, 2)) return 0;
    check(!path.empty(), "--model: expected the folder of a tuned model");
    check(examples > 0, "--examples: expected at least 1, found %ld", examples);
    TaskSources sources{.words = {}, .identity = {}, .model_name = name};
    if (tasks.find("spelling") != tasks.npos || tasks.find("letter_count") != tasks.npos)
        sources.words = task_words(words);
    if (tasks.find("identity") != tasks.npos) sources.identity = read_conversations({identity});
    auto model = load_for_inference(path, dtype_from(args.dtype()), device_from(args.device()));
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const std::string& task_name : split(tasks, ',')) {
        auto task = make_task(task_name, sources, 1);
        TaskScore s = grade_task(*model, *task, examples);
        nlohmann::ordered_json shown = nlohmann::ordered_json::array();
        for (auto& x : s.shown)
            shown.push_back(
                {{"question", x.question}, {"answer", replace_invalid_utf8(x.answer)}, {"right", x.right}});
        all.push_back({{"task", s.task},
                       {"examples", s.examples},
                       {"right", s.right},
                       {"accuracy", s.accuracy()},
                       {"baseline", s.baseline},
                       {"shown", shown}});
        if (json) continue;
        std::printf("%-14s %5.1f%%  (%ld of %ld; best constant answer %.1f%%)\n", s.task.c_str(),
                    100 * s.accuracy(), s.right, s.examples, 100 * s.baseline);
        if (!s.shown.empty())
            std::printf("               %s -> %s\n", s.shown[0].question.c_str(),
                        replace_invalid_utf8(s.shown[0].answer).c_str());
    }
    if (json) std::printf("%s\n", all.dump().c_str());
    if (!output.empty()) write_file(output, all.dump(2) + "\n");
    return 0;
}

} // namespace nvl
