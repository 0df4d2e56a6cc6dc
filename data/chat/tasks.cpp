#include "data/chat/tasks.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "data/chat/calculator.h"
#include "data/text/documents.h"
#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/base/text.h"

namespace nvl {
namespace {

/// Draws of one example: the k-th call of below() depends on (seed, task, split, index, k) alone.
class Draw {
public:
    Draw(uint64_t seed, const std::string& task, Split split, uint64_t index)
        : random_(seed, task + (split == Split::test ? ":test" : ":train"), index) {}
    uint64_t below(uint64_t n) { return random_.below(next_++, n); }

private:
    Random random_;
    uint64_t next_ = 0;
};

/// One question in eight belongs to the test split, by what it asks. The seed has no part in it: runs with
/// different seeds never train on each other's tests.
Split split_of(std::string_view question) {
    return Random(0, question).below(0, 8) ? Split::train : Split::test;
}

std::string_view trimmed(std::string_view s) {
    size_t begin = s.find_first_not_of(" \t\r\n");
    if (begin == s.npos) return {};
    return s.substr(begin, s.find_last_not_of(" \t\r\n") + 1 - begin);
}

/// The last whole number of a text, with its sign and without commas; empty if there is none.
std::string last_number(std::string_view text) {
    size_t end = text.find_last_of("0123456789");
    if (end == text.npos) return {};
    std::string digits;
    size_t i = end + 1;
    for (; i > 0 && ((text[i - 1] >= '0' && text[i - 1] <= '9') || text[i - 1] == ','); i--)
        if (text[i - 1] != ',') digits += text[i - 1];
    // a minus sign counts where it cannot be a subtraction: 5-3 ends in 3, "= -3" in -3
    if (i > 0 && text[i - 1] == '-' && (i == 1 || text[i - 2] == ' ')) digits += '-';
    std::reverse(digits.begin(), digits.end());
    return digits;
}

Message calls(const std::string& expression, const std::string& text_after) {
    auto result = calculate(expression);
    check(result.has_value(), "task: the calculator cannot do %s", expression.c_str());
    return {Message::assistant,
            {{Part::python, expression}, {Part::python_output, *result}, {Part::text, text_after}}};
}

/// The words of each split; both must have some.
struct Words {
    std::vector<std::string> of[2];
    Words(const std::vector<std::string>& words, const char* task) {
        for (const std::string& w : words) {
            check(!w.empty() && std::all_of(w.begin(), w.end(), [](char c) { return c >= 'a' && c <= 'z'; }),
                  "%s: words must be letters a-z, found \"%.40s\"", task, w.c_str());
            of[split_of(w) == Split::test].push_back(w);
        }
        check(!of[0].empty() && !of[1].empty(),
              "%s: %zu words are too few to hold some out for the test; give more", task, words.size());
    }
    const std::string& pick(Split split, Draw& draw) const {
        const auto& list = of[split == Split::test];
        return list[draw.below(list.size())];
    }
};

class Spelling : public Task {
public:
    Spelling(const std::vector<std::string>& words, uint64_t seed) : words_(words, "spelling"), seed_(seed) {}
    std::string name() const override { return "spelling"; }
    TaskExample example(Split split, uint64_t index) const override {
        // The quotes matter: behind them a word is cut into the same pieces wherever it stands, and mostly
        // into several small ones, so that spelling can be learned from pieces and works for words not seen
        // before.
        static const char* ask[] = {"Spell the word \"%s\".", "How do you spell \"%s\"?",
                                    "Spell \"%s\" letter by letter.", "Please spell \"%s\"."};
        Draw draw(seed_, name(), split, index);
        const std::string& word = words_.pick(split, draw);
        std::string answer;
        for (char c : word) answer += answer.empty() ? std::string(1, c) : std::string{' ', c};
        std::string question = ask[draw.below(4)];
        question.replace(question.find("%s"), 2, word);
        return {{{user_says(question), assistant_says(answer)}}, answer};
    }
    bool grade(const TaskExample& example, std::string_view text) const override {
        return trimmed(text) == example.answer;
    }

private:
    Words words_;
    uint64_t seed_;
};

class LetterCount : public Task {
public:
    LetterCount(const std::vector<std::string>& words, uint64_t seed)
        : words_(words, "letter count"), seed_(seed) {}
    std::string name() const override { return "letter_count"; }
    TaskExample example(Split split, uint64_t index) const override {
        static const char* ask[] = {"How many times does \"%c\" occur in \"%s\"?",
                                    "How many \"%c\" are in \"%s\"?", "Count the letter \"%c\" in \"%s\"."};
        Draw draw(seed_, name(), split, index);
        const std::string& word = words_.pick(split, draw);
        char letter = pick_letter(word, draw);
        std::string question = ask[draw.below(3)];
        question.replace(question.find("%c"), 2, 1, letter);
        question.replace(question.find("%s"), 2, word);
        auto n = std::count(word.begin(), word.end(), letter);
        // Parentheses keep the word apart from its quote, as the space before it does in the question: the
        // model copies the same pieces.
        Message answer = calls(
            "(\"" + word + "\").count(\"" + letter + "\")",
            format("\"%c\" occurs %ld time%s in \"%s\".", letter, long(n), n == 1 ? "" : "s", word.c_str()));
        return {{{user_says(question), answer}}, std::to_string(n)};
    }
    bool grade(const TaskExample& example, std::string_view text) const override {
        return last_number(text) == example.answer;
    }

private:
    /// Half the time the most frequent letter, else one of the word's or any: no count should be too common.
    static char pick_letter(const std::string& word, Draw& draw) {
        uint64_t kind = draw.below(4);
        if (kind == 0) return char('a' + draw.below(26));
        if (kind == 1) return word[draw.below(word.size())];
        return *std::max_element(word.begin(), word.end(), [&](char a, char b) {
            return std::count(word.begin(), word.end(), a) < std::count(word.begin(), word.end(), b);
        });
    }
    Words words_;
    uint64_t seed_;
};

class Arithmetic : public Task {
public:
    explicit Arithmetic(uint64_t seed) : seed_(seed) {}
    std::string name() const override { return "arithmetic"; }
    TaskExample example(Split split, uint64_t index) const override {
        Draw draw(seed_, name(), split, index);
        int64_t a = 0, b = 0;
        int op = 0;
        do { // until the question is one of this split
            op = int(draw.below(3));
            uint64_t limit = op == 2 ? 21 : 100;
            a = int64_t(draw.below(limit)), b = int64_t(draw.below(limit));
            if (op == 1 && a < b) std::swap(a, b);
        } while (split_of(question_key(op, a, b)) != split);
        static const char sign[] = {'+', '-', '*'};
        static const char* word[] = {"plus", "minus", "times"};
        std::string question;
        switch (draw.below(4)) {
        case 0: question = format("What is %ld %c %ld?", long(a), sign[op], long(b)); break;
        case 1: question = format("Calculate %ld %c %ld.", long(a), sign[op], long(b)); break;
        case 2: question = format("%ld %c %ld = ?", long(a), sign[op], long(b)); break;
        default: question = format("What is %ld %s %ld?", long(a), word[op], long(b));
        }
        int64_t result = op == 0 ? a + b : op == 1 ? a - b : a * b;
        Message answer = calls(format("%ld%c%ld", long(a), sign[op], long(b)),
                               format("%ld %c %ld = %ld", long(a), sign[op], long(b), long(result)));
        return {{{user_says(question), answer}}, std::to_string(result)};
    }
    bool grade(const TaskExample& example, std::string_view text) const override {
        return last_number(text) == example.answer;
    }

private:
    /// 2 + 3 and 3 + 2 are one question.
    static std::string question_key(int op, int64_t a, int64_t b) {
        if (op != 1 && a > b) std::swap(a, b);
        return format("arithmetic %d %ld %ld", op, long(a), long(b));
    }
    uint64_t seed_;
};

class Identity : public Task {
public:
    Identity(const std::vector<Conversation>& conversations, const std::string& model_name, uint64_t seed)
        : model_name_(model_name), seed_(seed) {
        auto gradable = [&](const Conversation& c) {
            return c.messages.size() == 2 && text_of(c.messages[1]).find(model_name) != std::string::npos;
        };
        std::set<std::string> held_out; // questions
        for (const Conversation& c : conversations) {
            validate(c, "identity");
            check(c.messages.back().role == Message::assistant,
                  "identity: a conversation ends without an answer");
            if (gradable(c) && split_of(question_key(c)) == Split::test) held_out.insert(question_key(c));
        }
        for (const Conversation& c :
             conversations) // a longer conversation that asks a held-out question is left out
            if (!held_out.contains(question_key(c)) || gradable(c))
                of_[held_out.contains(question_key(c))].push_back(c);
        check(!of_[0].empty() && !of_[1].empty(),
              "identity: %zu conversations are too few, or none of their answers says %s",
              conversations.size(), model_name.c_str());
    }
    std::string name() const override { return "identity"; }
    TaskExample example(Split split, uint64_t index) const override {
        const auto& list = of_[split == Split::test];
        uint64_t round = index / list.size(), i = permuted(index % list.size(), list.size(), seed_ + round);
        return {list[i], model_name_};
    }
    bool grade(const TaskExample& example, std::string_view text) const override {
        return text.find(example.answer) != text.npos;
    }
    double baseline(int64_t) const override { return 0; }

private:
    /// "Who are you?" and "who are you" are one question.
    static std::string question_key(const Conversation& c) {
        std::string question = text_of(c.messages[c.messages[0].role == Message::system]);
        std::string key = "identity:";
        for (char c : question)
            if (c != '?' && c != '!' && c != '.' && c != ',') key += c >= 'A' && c <= 'Z' ? char(c + 32) : c;
        return key;
    }
    std::string model_name_;
    uint64_t seed_;
    std::vector<Conversation> of_[2];
};
} // namespace

double Task::baseline(int64_t n) const {
    check(n > 0, "baseline: needs at least one example, found %ld", long(n));
    std::map<std::string, int64_t> counts;
    int64_t most = 0;
    for (int64_t i = 0; i < n; i++) most = std::max(most, ++counts[example(Split::test, uint64_t(i)).answer]);
    return double(most) / double(n);
}

std::unique_ptr<Task> spelling_task(const std::vector<std::string>& words, uint64_t seed) {
    return std::make_unique<Spelling>(words, seed);
}
std::unique_ptr<Task> letter_count_task(const std::vector<std::string>& words, uint64_t seed) {
    return std::make_unique<LetterCount>(words, seed);
}
std::unique_ptr<Task> arithmetic_task(uint64_t seed) { return std::make_unique<Arithmetic>(seed); }
std::unique_ptr<Task> identity_task(const std::vector<Conversation>& conversations,
                                    const std::string& model_name, uint64_t seed) {
    return std::make_unique<Identity>(conversations, model_name, seed);
}

std::unique_ptr<Task> make_task(const std::string& name, const TaskSources& sources, uint64_t seed) {
    if (name == "spelling") return spelling_task(sources.words, seed);
    if (name == "letter_count") return letter_count_task(sources.words, seed);
    if (name == "arithmetic") return arithmetic_task(seed);
    if (name == "identity") return identity_task(sources.identity, sources.model_name, seed);
    std::string near = nearest(name, {"spelling", "letter_count", "arithmetic", "identity"});
    fail("unknown task \"%s\"; there are spelling, letter_count, arithmetic and identity%s", name.c_str(),
         near.empty() ? "" : (" (did you mean " + near + "?)").c_str());
}

std::vector<std::string> common_words(std::span<const std::string> texts, size_t count) {
    auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80); };
    std::unordered_map<std::string_view, int64_t> counts;
    for (std::string_view text : texts)
        for (size_t i = 0; i < text.size();) {
            size_t begin = i;
            bool plain = true; // a name, a word with an accent or a part of one like don't is not counted
            for (; i < text.size() && letter(text[i]); i++) plain = plain && text[i] >= 'a' && text[i] <= 'z';
            bool joined = (begin && text[begin - 1] == '\'') || (i < text.size() && text[i] == '\'');
            if (plain && !joined && i - begin >= 3 && i - begin <= 10)
                counts[text.substr(begin, i - begin)]++;
            if (i == begin) i++;
        }
    std::vector<std::pair<int64_t, std::string_view>> ranked;
    for (auto& [word, n] : counts) ranked.push_back({-n, word});
    std::sort(ranked.begin(), ranked.end());
    ranked.resize(std::min(count, ranked.size()));
    std::vector<std::string> words;
    for (auto& [n, word] : ranked) words.emplace_back(word);
    return words;
}

std::vector<Conversation> read_conversations(const std::vector<std::string>& paths) {
    std::vector<Conversation> out;
    each_document(paths, [&](Document&& d) {
        check(d.conversation.has_value(), "%s: expected a conversation {\"messages\": [...]}, found text",
              d.where.c_str());
        out.push_back(std::move(*d.conversation));
    });
    return out;
}

std::vector<Conversation> task_conversations(const Task& task, int64_t count) {
    std::vector<Conversation> out;
    for (int64_t i = 0; i < count; i++) out.push_back(task.example(Split::train, uint64_t(i)).conversation);
    return out;
}

void write_chat_shard(const std::string& path, std::span<const Conversation> conversations,
                      const ChatTemplate& chat, const TokenizerId& tokenizer, int64_t max_tokens) {
    std::vector<ChatTokens> rendered(conversations.size());
    parallel_for(int64_t(rendered.size()), 16, [&](int64_t begin, int64_t end) {
        for (auto i = size_t(begin); i < size_t(end); i++)
            rendered[i] = chat.render(conversations[i], max_tokens);
    });
    ShardWriter writer(tokenizer);
    for (const ChatTokens& c : rendered) writer.add(c.ids, c.mask);
    writer.write(path);
}

} // namespace nvl
