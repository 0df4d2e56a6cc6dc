// Generation: prompts in, tokens and text out; many at once over one Engine.
//
// A result is a function of the request alone: not of what else is in the batch, of the number of sequences,
// of chunks, or of what was in the cache. The token at place p of a sequence is drawn with the random number
// (seed, stream, p).
#pragma once
#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat/template.h"
#include "data/tokenizer/tokenizer.h"
#include "infer/engine.h"
#include "kernels/sample/sample.h"

namespace nvl {

struct Request {
    std::vector<int32_t> prompt;
    SamplingParams sampling;
    uint64_t seed = 0, stream = 0;       // several samples of one prompt: one seed, streams 0, 1, 2, ...
    int64_t max_tokens = 256;            // of the answer, forced ids included
    std::vector<int32_t> stop_ids;       // end the answer; part of ids, not of text
    std::vector<std::string> stop;       // end the text in front of them
    const ChatTemplate* tools = nullptr; // answers calls of the calculator
    /// -1: a sequence of its own. Else an open one that holds the first tokens of the prompt already (fewer
    /// than all). It stays open; its length afterwards says how many of prompt + ids it holds.
    int sequence = -1;
};

enum class Finish : uint8_t { stop, length, context, cancelled };
const char* name_of(Finish finish); // "stop", "length", "context", "cancelled"

struct Generation {
    std::vector<int32_t> ids;
    std::vector<double> logprobs; // natural logarithm under the model itself; 0 for forced ids
    std::vector<uint8_t> forced;  // 1: from the calculator, not from the model
    std::string text;             // well-formed; without special tokens, calls and their results
    Finish finish = Finish::length;
};

/// Called with text as it is made: what is said, a call, or its result. Returning false cancels the request.
using OnText = std::function<bool(size_t request, Part::Kind kind, std::string_view text)>;

struct GenerationSpeed {
    int64_t prefill_tokens = 0, decode_tokens = 0;
    double prefill_seconds = 0, decode_seconds = 0;
    double prefill_per_second() const {
        return prefill_seconds > 0 ? double(prefill_tokens) / prefill_seconds : 0;
    }
    double decode_per_second() const {
        return decode_seconds > 0 ? double(decode_tokens) / decode_seconds : 0;
    }
};

class Generator {
public:
    /// Without a tokenizer there is no text: stop strings and tools are errors then.
    explicit Generator(Engine& engine, const Tokenizer* tokenizer = nullptr)
        : engine_(engine), tokenizer_(tokenizer) {}

    /// Runs all requests, as many at a time as the engine has sequences; the others wait for a free one.
    std::vector<Generation> run(std::span<const Request> requests, const OnText& on_text = nullptr);
    Generation run(const Request& request, const OnText& on_text = nullptr);

    /// Set from another thread or a signal handler: every request ends as cancelled after the step that is
    /// under way. Cleared when run() begins.
    std::atomic<bool> cancel = false;
    /// Of the last run.
    GenerationSpeed speed;

private:
    struct Active;
    void validate(const Request& r) const;
    void admit(Active& a) const;
    void step(std::span<Active> active);
    Engine& engine_;
    const Tokenizer* tokenizer_;
};

} // namespace nvl
