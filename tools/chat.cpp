// chat: a conversation in the terminal. The cache stays between turns; Ctrl-C stops an answer, not the
// program.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <sstream>

#include "engine/base/cli.h"
#include "engine/base/text.h"
#include "infer/chat_session.h"
#include "infer/load.h"
#include "tools/sampling_options.h"

using namespace nvl;

namespace {

std::atomic<bool>* cancel_flag = nullptr;
volatile std::sig_atomic_t interrupted = 0;
void on_interrupt(int) {
    interrupted = 1;
    if (cancel_flag) *cancel_flag = true;
}
// Without SA_RESTART, so that Ctrl-C also ends a wait for input.
void catch_interrupt() {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, nullptr);
}

constexpr const char* HELP = "/clear          forget the conversation\n"
                             "/temperature X  0: always the likeliest token\n"
                             "/quit           end (also: end of input)\n"
                             "Ctrl-C          stop the answer\n";

class Terminal {
public:
    Terminal() : in_(isatty(STDIN_FILENO)), colour_(isatty(STDOUT_FILENO)) {}
    // False at the end of input.
    bool read(std::string& line) {
        for (;;) {
            if (in_) std::fputs("\n> ", stdout), std::fflush(stdout);
            interrupted = 0;
            if (std::getline(std::cin, line)) return true;
            if (!interrupted) return false; // the end of input looks the same to the stream
            std::cin.clear(), clearerr(stdin);
            if (in_) std::fputs("\n(/quit ends)", stdout);
        }
    }
    // Calls of the calculator look like [2+3 = 5].
    void show(Part::Kind kind, std::string_view text) {
        bool after_call = kind_ != Part::text && kind == Part::text;
        if (kind != kind_) mark(kind);
        if (after_call && text.substr(0, 1) != " ")
            std::fputs(" ", stdout); // the bracket is ours, not the model's
        std::fwrite(text.data(), 1, text.size(), stdout), std::fflush(stdout);
    }
    void end_answer() { mark(Part::text), std::fputs("\n", stdout), std::fflush(stdout); }
    void note(const std::string& text) {
        std::printf("%s(%s)%s\n", colour_ ? "\x1b[2m" : "", text.c_str(), colour_ ? "\x1b[0m" : "");
        std::fflush(stdout);
    }
    bool interactive() const { return in_; }

private:
    void mark(Part::Kind next) {
        bool was = kind_ != Part::text, is = next != Part::text;
        if (!was && is) std::printf("%s[", colour_ ? "\x1b[36m" : "");
        if (was && is) std::fputs(" = ", stdout);
        if (was && !is) std::printf("]%s", colour_ ? "\x1b[0m" : "");
        kind_ = next;
    }
    bool in_, colour_;
    Part::Kind kind_ = Part::text;
};

// False for /quit.
bool command(const std::string& line, ChatSession& chat, Terminal& terminal) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name == "/quit" || name == "/exit") return false;
    if (name == "/clear") {
        chat.clear();
        terminal.note("the conversation is forgotten");
    } else if (name == "/temperature") {
        SamplingParams changed = chat.options.sampling;
        if (!(words >> changed.temperature) || changed.temperature < 0 || changed.temperature > 100)
            terminal.note("/temperature expects a number from 0 to 100");
        else
            chat.options.sampling = changed, terminal.note(format("temperature %g", changed.temperature));
    } else if (name == "/help")
        std::fputs(HELP, stdout);
    else {
        std::string near = nearest(name, {"/quit", "/clear", "/temperature", "/help"});
        terminal.note("unknown command " + name +
                      (near.empty() ? "; see /help" : "; did you mean " + near + "?"));
    }
    return true;
}

void answer(const std::string& line, ChatSession& chat, Generator& generator, Terminal& terminal,
            bool speed) {
    try {
        ChatAnswer a = chat.say(line, [&](size_t, Part::Kind kind, std::string_view text) {
            terminal.show(kind, text);
            return true;
        });
        terminal.end_answer();
        if (a.dropped_turns)
            terminal.note(
                format("the context is full: the oldest %s forgotten",
                       a.dropped_turns == 1 ? "turn is" : format("%ld turns are", a.dropped_turns).c_str()));
        Finish f = a.generation.finish;
        if (f == Finish::cancelled) terminal.note("stopped");
        if (f == Finish::length) terminal.note("cut: --max-tokens reached");
        if (f == Finish::context) terminal.note("cut: the context is full; /clear begins anew");
        if (speed)
            terminal.note(format("%ld of %ld prompt tokens fed, %.0f tokens/s; %zu tokens, %.1f tokens/s",
                                 a.fed, a.prompt_tokens, generator.speed.prefill_per_second(),
                                 a.generation.ids.size(), generator.speed.decode_per_second()));
    } catch (const Error& e) {
        terminal.end_answer();
        terminal.note(e.what());
    }
}

int run(int argc, char** argv) {
    Args args("chat", "Chats with a model in the terminal. Commands while chatting:\n" + std::string(HELP));
    auto& path = args.option("model", "", "Hugging Face folder or .gguf file of a model tuned to chat");
    auto& system = args.option("system", "", "what the model is told first");
    auto& max_tokens = args.option("max-tokens", 512, "most tokens of an answer");
    auto& context = args.option("context", 2048, "most tokens of the conversation");
    SamplingOptions sampling(args, {.temperature = 0.7, .top_k = 50, .top_p = 0.95});
    auto& stop = args.list("stop", "end an answer in front of any of these texts");
    auto& speed = args.flag("speed", "print tokens per second after each answer");
    args.common("bf16");
    if (!args.parse(argc, argv)) return 0;
    check(!path.empty(), "expected --model; see --help");
    check(max_tokens >= 1 && context >= 16, "expected --max-tokens 1 or more and --context 16 or more");

    auto loaded = load_for_inference(path, dtype_from(args.dtype()), device_from(args.device()));
    ChatFormat chat_format(loaded->need_tokenizer());
    Engine engine(*loaded->model, {.dtype = loaded->dtype,
                                   .tokens_per_sequence = std::min(context, loaded->model->dims.context),
                                   .pack = true});
    Generator generator(engine, &*loaded->tokenizer);
    ChatOptions options{.system = system,
                        .sampling = sampling.params(),
                        .seed = sampling.seed(),
                        .max_tokens = max_tokens,
                        .stop = stop};
    validate(options.sampling);
    ChatSession chat(generator, engine, chat_format, options);
    cancel_flag = &generator.cancel;
    catch_interrupt();
    Terminal terminal;
    if (terminal.interactive())
        terminal.note(format("%s, %s parameters, %s format; /help shows the commands", path.c_str(),
                             human(double(loaded->model->parameters()), "").c_str(), chat_format.name()));
    for (std::string line; terminal.read(line);) {
        if (line.find_first_not_of(" \t\r") == line.npos) continue;
        if (line[0] != '/')
            answer(line, chat, generator, terminal, speed);
        else if (!command(line, chat, terminal))
            break;
    }
    if (terminal.interactive()) std::printf("\n");
    cancel_flag = nullptr;
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_main("chat", [&] { return run(argc, argv); });
}
