#include "train/loop/sample.h"

#include <algorithm>
#include <cmath>

#include "engine/base/rng.h"

namespace nvl {

Sampler::Sampler(Model& model, int64_t tokens)
    : capacity_(tokens), vocabulary_(model.dims.V),
      program_(model, tokens, MOST_SEQUENCES, StepProgram::logits) {}

static int32_t choose(const float* logits, int64_t V, double temperature, double uniform) {
    int64_t best = std::max_element(logits, logits + V) - logits;
    if (temperature <= 0) return int32_t(best);
    double sum = 0, cumulated = 0;
    std::vector<double> p(static_cast<size_t>(V));
    for (int64_t v = 0; v < V; v++)
        sum += p[size_t(v)] = std::exp((double(logits[v]) - logits[best]) / temperature);
    for (int64_t v = 0; v < V; v++)
        if ((cumulated += p[size_t(v)]) > uniform * sum) return int32_t(v);
    return int32_t(best);
}

std::vector<std::vector<int32_t>> Sampler::generate(const std::vector<std::vector<int32_t>>& prompts,
                                                    const SampleOptions& o) {
    std::vector<std::vector<int32_t>> all = prompts, answers(prompts.size());
    std::vector<size_t> waiting(prompts.size());
    for (size_t i = 0; i < waiting.size(); i++) waiting[i] = i;
    auto room = [&](size_t i) { return int64_t(all[i].size()) < capacity_; };
    std::erase_if(waiting, [&](size_t i) { return prompts[i].empty() || !room(i); });
    while (!waiting.empty()) { // as many sequences as fit take one token each
        TokenBatch batch;
        batch.sequence_starts = {0};
        std::vector<size_t> active;
        for (size_t i : waiting) {
            if (int64_t(batch.tokens.size() + all[i].size()) > capacity_ || active.size() == MOST_SEQUENCES)
                break;
            for (size_t k = 0; k < all[i].size(); k++)
                batch.tokens.push_back(all[i][k]), batch.positions.push_back(int32_t(k));
            batch.sequence_starts.push_back(int32_t(batch.tokens.size()));
            active.push_back(i);
        }
        program_.run(batch);
        std::vector<bool> done(prompts.size(), false);
        for (size_t a = 0; a < active.size(); a++) {
            size_t i = active[a];
            double u = Random(o.seed, "sample", i).uniform(answers[i].size());
            int32_t id = choose(program_.token_logits(batch.sequence_starts[a + 1] - 1), vocabulary_,
                                o.temperature, u);
            std::vector<int32_t> add{id};
            if (o.force)
                for (int32_t forced : o.force(i, id)) add.push_back(forced);
            for (int32_t x : add) all[i].push_back(x), answers[i].push_back(x);
            done[i] = (o.ends && o.ends(id)) || int64_t(answers[i].size()) >= o.max_tokens || !room(i);
        }
        std::erase_if(waiting, [&](size_t i) { return done[i]; });
    }
    return answers;
}

} // namespace nvl
