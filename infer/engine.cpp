#include "infer/engine.h"

#include <algorithm>

#include "engine/tape/passes.h"
#include "kernels/attention/paged.h"
#include "kernels/embed/embedding.h"

namespace nvl {

static int64_t pages_for(int64_t tokens) { return (tokens + PAGE - 1) / PAGE; }
static int64_t wanted_room(const Model& model, const EngineOptions& o) {
    return o.tokens_per_sequence ? o.tokens_per_sequence : model.dims.context;
}

Engine::Engine(Model& model, const EngineOptions& options)
    : model_(model), options_(options), max_pages_(pages_for(wanted_room(model, options))),
      pages_(max_pages_ * options.sequences, PAGE), sequences_(size_t(options.sequences)),
      store_(model.head().buffer->device) {
    check(options.sequences >= 1 && options.step_tokens >= options.sequences,
          "inference: %ld sequences and %ld tokens a step; expected at least one token for each",
          options.sequences, options.step_tokens);
    for (int64_t l = 0; l < model.dims.layers; l++) {
        CacheShape c = model.cache_shape();
        int64_t rows = max_pages_ * options.sequences * PAGE;
        std::string layer = std::to_string(l);
        cache_.k.push_back(store_.tensor("k." + layer, {rows, c.heads, c.key}, options.dtype));
        if (c.value) cache_.v.push_back(store_.tensor("v." + layer, {rows, c.heads, c.value}, options.dtype));
    }
    record();
}

void Engine::record() {
    Recording recording(tape_);
    tape_.no_grad();
    packed_.on_use = options_.pack;
    UsePacked use(packed_);
    Dim T = tape_.capacity(options_.step_tokens), N = tape_.capacity(options_.sequences),
        R = tape_.capacity(options_.step_tokens);
    tokens_ = tape_.input("tokens", {T}, Dtype::i32), positions_ = tape_.input("positions", {T}, Dtype::i32);
    cache_.slots = tape_.input("slots", {T}, Dtype::i32);
    cache_.page_table = tape_.input("page_table", {N, max_pages_}, Dtype::i32);
    cache_.query_starts = tape_.input("query_starts", {options_.sequences + 1}, Dtype::i32);
    cache_.context_lengths = tape_.input("context_lengths", {N}, Dtype::i32);
    logit_rows_ = tape_.input("logit_rows", {R}, Dtype::i32);
    Cache handles = cache_; // appends replace the handles; the persistent ones stay as they are
    Tensor hidden = model_.hidden({tokens_, positions_, {}, &handles});
    logits_ =
        tape_.keep(model_.head_logits(embedding(hidden, logit_rows_))); // the head only where someone asks
    eliminate_dead(tape_);
    program_ = std::make_unique<Program>(tape_);
}

int Engine::open() {
    for (size_t i = 0; i < sequences_.size(); i++)
        if (!sequences_[i].open) {
            sequences_[i] = {true, {}, 0};
            return int(i);
        }
    fail("inference: all %zu sequences are open; close one or ask for more", sequences_.size());
}
void Engine::close(int sequence) {
    truncate(sequence, 0);
    sequences_[size_t(sequence)].open = false;
}
void Engine::truncate(int sequence, int64_t length) {
    Sequence& s = sequences_.at(size_t(sequence));
    check(s.open && length >= 0 && length <= s.length,
          "inference: cannot cut a sequence of %ld tokens to %ld", s.length, length);
    pages_.shrink(s.pages, length);
    s.length = length;
}
int64_t Engine::length(int sequence) const { return sequences_.at(size_t(sequence)).length; }
int64_t Engine::free_sequences() const {
    return std::count_if(sequences_.begin(), sequences_.end(), [](const Sequence& s) { return !s.open; });
}
int64_t Engine::room() const { return std::min(model_.dims.context, max_pages_ * PAGE); }

double Engine::decode_bytes(int64_t context) const {
    double bytes = 0;
    model_.each([&](const WeightInfo& w, Tensor& t) { // of a table that is no head too, one row is read
        bool rows = w.role == Role::embedding && t.buffer != model_.head().buffer;
        bytes +=
            double(rows ? w.shape[-1].size : w.shape.numel()) * w.active * double(size_of(options_.dtype));
    });
    int64_t tokens = 0;
    for (int64_t w : model_.dims.window) tokens += w ? std::min(w, context) : context;
    CacheShape c = model_.cache_shape();
    return bytes + double(tokens * c.heads * (c.key + c.value) * size_of(options_.dtype));
}

void Engine::feed(std::span<const Feed> feeds,
                  const std::function<void(size_t, int64_t, std::span<const float>)>& on_logits) {
    for (const Feed& f : feeds) { // all or nothing: what does not fit is refused before anything is appended
        Sequence& s = sequences_.at(size_t(f.sequence));
        check(s.open, "inference: sequence %d is not open", f.sequence);
        int64_t length = s.length + int64_t(f.tokens.size());
        check(length <= model_.dims.context, "the context is full: %ld tokens, the model has %ld positions",
              length, model_.dims.context);
        check(pages_for(length) <= max_pages_,
              "the context is full: %ld tokens, the cache holds %ld per sequence", length, max_pages_ * PAGE);
        for (int32_t id : f.tokens)
            check(id >= 0 && id < model_.dims.V, "token id %d: the vocabulary has %ld ids", id,
                  model_.dims.V);
    }
    std::vector<Row> rows;
    for (size_t f = 0; f < feeds.size(); f++) {
        Sequence& s = sequences_[size_t(feeds[f].sequence)];
        pages_.grow(s.pages, s.length + int64_t(feeds[f].tokens.size()));
        auto n = int64_t(feeds[f].tokens.size());
        for (int64_t i = 0; i < n; i++) {
            rows.push_back({f, i, feeds[f].logits == Logits::all || i + 1 == n});
            if (int64_t(rows.size()) == options_.step_tokens) run(feeds, rows, on_logits), rows.clear();
        }
    }
    if (!rows.empty()) run(feeds, rows, on_logits);
}

void Engine::run(std::span<const Feed> feeds, const std::vector<Row>& rows,
                 const std::function<void(size_t, int64_t, std::span<const float>)>& on_logits) {
    auto data = [&](const Tensor& t) { return program_->data<int32_t>(t); };
    int32_t *table = data(cache_.page_table), *starts = data(cache_.query_starts),
            *lengths = data(cache_.context_lengths), *tokens = data(tokens_), *positions = data(positions_),
            *slots = data(cache_.slots), *logit_rows = data(logit_rows_);
    int64_t n = 0, wanted = 0;
    for (size_t i = 0; i < rows.size(); i++) {
        const Feed& f = feeds[rows[i].feed];
        Sequence& s = sequences_[size_t(f.sequence)];
        if (i == 0 || rows[i].feed != rows[i - 1].feed) {
            std::copy(s.pages.begin(), s.pages.end(), table + n * max_pages_);
            starts[n++] = int32_t(i);
        }
        tokens[i] = f.tokens[size_t(rows[i].index)];
        positions[i] = int32_t(s.length);
        slots[i] = pages_.row(s.pages, s.length);
        if (rows[i].wanted) logit_rows[wanted++] = int32_t(i);
        lengths[n - 1] = int32_t(++s.length);
    }
    for (int64_t i = n; i <= options_.sequences; i++) starts[i] = int32_t(rows.size());
    program_->run({.counts = {int64_t(rows.size()), n, wanted}, .seconds = seconds});
    if (!wanted) return;
    const float* logits = program_->data<float>(logits_);
    int64_t V = model_.dims.V, k = 0;
    for (const Row& row : rows)
        if (row.wanted) on_logits(row.feed, row.index, {logits + k++ * V, size_t(V)});
}

} // namespace nvl
