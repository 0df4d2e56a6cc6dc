#include "infer/generate.h"

#include <algorithm>
#include <deque>
#include <optional>

#include "data/chat/tool_state.h"
#include "engine/base/clock.h"
#include "infer/stop_text.h"

namespace nvl {

const char* name_of(Finish f) {
    constexpr const char* NAMES[] = {"stop", "length", "context", "cancelled"};
    return NAMES[size_t(f)];
}

// One request on its way.
struct Generator::Active {
    const Request* request;
    size_t number;
    Generation* out;
    const OnText* on_text;
    const Tokenizer* tokenizer;
    int64_t room; // most tokens the sequence can hold
    int sequence = -1;
    bool started = false, done = false;
    std::vector<int32_t> pending; // not in the cache yet
    StopText stop{request->stop};
    std::optional<StreamDecoder> decoder{};
    std::optional<ToolState> tools{};
    Part::Kind kind = Part::text;

    void finish(Finish reason) {
        if (!done) out->finish = reason;
        done = true;
    }
    void show(std::string text) {
        if (kind == Part::text) out->text += text;
        if (!text.empty() && *on_text && !(*on_text)(number, kind, text)) finish(Finish::cancelled);
    }
    // What was said goes out before something else begins.
    void change(Part::Kind next) {
        std::string rest = decoder->finish();
        show(kind == Part::text ? stop.push(rest) : rest);
        if (kind == Part::text && !stop.found()) show(stop.flush());
        kind = next;
    }
    void say(int32_t id) {
        const ChatTemplate* chat = request->tools;
        if (chat && id == chat->python_start) return change(Part::python);
        if (chat && id == chat->output_start) return change(Part::python_output);
        if (chat && (id == chat->python_end || id == chat->output_end)) return change(Part::text);
        std::string text = decoder->push(id);
        show(kind == Part::text ? stop.push(text) : text);
    }
    // One more id of the answer: the model's, or forced by the tool.
    void append(int32_t id, double logprob, bool forced) {
        out->ids.push_back(id), out->logprobs.push_back(logprob), out->forced.push_back(forced);
        pending.push_back(id);
        const auto& ends = request->stop_ids;
        if (!forced && std::find(ends.begin(), ends.end(), id) != ends.end()) return finish(Finish::stop);
        if (decoder) say(id);
        if (stop.found()) finish(Finish::stop);
        if (int64_t(out->ids.size()) >= request->max_tokens) finish(Finish::length);
        if (int64_t(request->prompt.size() + out->ids.size()) > room) finish(Finish::context);
    }
    void sampled(Sampled s) {
        pending.clear();
        append(s.token, s.logprob, false);
        if (!tools || done) return;
        for (int32_t id : tools->feed(s.token))
            if (!done) append(id, 0, true);
    }
    void end() {
        if (decoder && !stop.found()) change(Part::text);
    }
};

void Generator::validate(const Request& r) const {
    nvl::validate(r.sampling);
    check(!r.prompt.empty(), "generation: the prompt has no tokens; expected at least one");
    check(r.max_tokens >= 1, "generation: at most %ld tokens; expected 1 or more", r.max_tokens);
    check(int64_t(r.prompt.size()) <= engine_.room(),
          "the prompt has %zu tokens, the context holds %ld; shorten it or enlarge the context",
          r.prompt.size(), engine_.room());
    int64_t V = engine_.model().dims.V;
    for (int32_t id : r.prompt)
        check(id >= 0 && id < V, "the prompt has token id %d, the vocabulary has %ld ids", id, V);
    check(tokenizer_ || (r.stop.empty() && !r.tools),
          "generation: stop strings and tools need a tokenizer, this model has none");
}

void Generator::admit(Active& a) const {
    const Request& r = *a.request;
    a.sequence = r.sequence >= 0 ? r.sequence : engine_.open();
    int64_t cached = engine_.length(a.sequence);
    check(cached < int64_t(r.prompt.size()),
          "generation: the sequence holds %ld tokens already, the prompt has %zu; expected fewer", cached,
          r.prompt.size());
    a.pending.assign(r.prompt.begin() + cached, r.prompt.end());
    if (tokenizer_) a.decoder.emplace(*tokenizer_);
    if (r.tools) a.tools.emplace(*r.tools);
}

void Generator::step(std::span<Active> active) {
    double begin = seconds_now();
    std::vector<Engine::Feed> feeds;
    std::vector<Sampled> next(active.size());
    int64_t first = 0;
    for (Active& a : active) {
        feeds.push_back({a.sequence, a.pending});
        if (!a.started) first += int64_t(a.pending.size());
    }
    engine_.feed(feeds, [&](size_t i, int64_t, std::span<const float> logits) {
        const Request& r = *active[i].request;
        const auto& answer = active[i].out->ids;
        uint64_t place = r.prompt.size() + answer.size();
        next[i] = sample(logits, r.sampling, {r.prompt, answer}, Random(r.seed, "sample", r.stream), place);
    });
    for (size_t i = 0; i < active.size(); i++) active[i].started = true, active[i].sampled(next[i]);
    double seconds = seconds_now() - begin;
    (first ? speed.prefill_seconds : speed.decode_seconds) += seconds;
    (first ? speed.prefill_tokens : speed.decode_tokens) += first ? first : int64_t(active.size());
}

std::vector<Generation> Generator::run(std::span<const Request> requests, const OnText& on_text) {
    speed = {};
    cancel = false;
    for (const Request& r : requests) validate(r);
    std::vector<Generation> results(requests.size());
    std::vector<Active> active;
    auto close = [&](const Active& a) {
        if (a.request->sequence < 0 && a.sequence >= 0) engine_.close(a.sequence);
    };
    size_t waiting = 0;
    auto can_start = [&] {
        return waiting < requests.size() &&
               (active.empty() || requests[waiting].sequence >= 0 || engine_.free_sequences() > 0);
    };
    try {
        while (waiting < requests.size() || !active.empty()) {
            for (; can_start(); waiting++) {
                active.push_back(
                    {&requests[waiting], waiting, &results[waiting], &on_text, tokenizer_, engine_.room()});
                admit(active.back());
            }
            step(active);
            for (Active& a : active) {
                if (cancel) a.finish(Finish::cancelled);
                if (a.done) a.end(), close(a);
            }
            std::erase_if(active, [](const Active& a) { return a.done; });
        }
    } catch (...) {
        for (const Active& a : active) close(a);
        throw;
    }
    return results;
}

Generation Generator::run(const Request& request, const OnText& on_text) {
    return std::move(run(std::span(&request, 1), on_text)[0]);
}

} // namespace nvl
