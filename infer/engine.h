// Inference: sequences over a paged key/value cache, fed together in one program of fixed capacity.
//
// A token's logits have the same bits whether it was fed alone, in a batch, in chunks of any size, or not
// cached at all: every kernel's order of summation depends on the row and its context alone.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/plan/program.h"
#include "infer/cache/pages.h"
#include "kernels/linear/packed.h"
#include "models/model.h"

namespace nvl {

struct EngineOptions {
    Dtype dtype = Dtype::f32;        // of activations and cache: that of the model's weights
    int64_t sequences = 1;           // open at once
    int64_t tokens_per_sequence = 0; // cache room: sequences * this; 0: the model's context
    bool pack = false; // a second copy of every matrix in the order the CPU's GEMM reads: decode twice as
                       // fast, the same bits. Later changes of the weights do not reach it.
    int64_t step_tokens = 256; // most tokens in one run of the program; longer prompts go in chunks
};

class Engine {
public:
    Engine(Model& model, const EngineOptions& options);

    /// A new empty sequence, and the end of one. `truncate` keeps the first `length` tokens (the shared part
    /// of a chat).
    int open();
    void close(int sequence);
    void truncate(int sequence, int64_t length);
    int64_t length(int sequence) const;
    int64_t free_sequences() const;
    /// Most tokens that one sequence can hold.
    int64_t room() const;

    enum class Logits { last, all };
    struct Feed {
        int sequence;
        std::span<const int32_t> tokens;
        Logits logits = Logits::last;
    };
    /// Appends tokens to sequences. on_logits(feed, index, logits) gets the (V) logits that follow token
    /// `index` of a feed: of its last token, or of all. A sequence may appear once.
    void
    feed(std::span<const Feed> feeds,
         const std::function<void(size_t feed, int64_t index, std::span<const float> logits)>& on_logits);

    Model& model() { return model_; }
    int64_t cache_bytes() const { return store_.bytes(); }
    /// Bytes that one decode step at this context reads: weights once, the cache of each sequence.
    double decode_bytes(int64_t context) const;
    const Program& program() const { return *program_; }
    /// Adds the time spent in each kernel, where set.
    std::map<std::string, double>* seconds = nullptr;

private:
    struct Sequence {
        bool open = false;
        std::vector<int32_t> pages;
        int64_t length = 0;
    };
    struct Row { // one token of the next run
        size_t feed;
        int64_t index;
        bool wanted;
    };
    void record();
    void run(std::span<const Feed> feeds, const std::vector<Row>& rows,
             const std::function<void(size_t, int64_t, std::span<const float>)>& on_logits);

    Model& model_;
    EngineOptions options_;
    int64_t max_pages_; // per sequence
    Pages pages_;
    std::vector<Sequence> sequences_;
    Store store_;
    PackedWeights packed_;
    Tape tape_;
    Cache cache_;
    Tensor tokens_, positions_, logit_rows_, logits_;
    std::unique_ptr<Program> program_;
};

} // namespace nvl
