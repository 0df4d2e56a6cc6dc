// forward: one pass of a model over given inputs: logits, loss, every gradient, greedy continuation. For
// goldens and for comparing two implementations number by number.
#include <algorithm>
#include <cstdio>
#include <deque>

#include "engine/base/cli.h"
#include "engine/io/safetensors.h"
#include "engine/plan/program.h"
#include "engine/tape/passes.h"
#include "infer/engine.h"
#include "models/checkpoint.h"

using namespace nvl;

namespace {

struct Inputs {
    int64_t B, S;
    std::vector<int32_t> ids, labels; // labels: the next token, negative where nothing is scored
};

Inputs read_inputs(const std::string& path) {
    Checkpoint file(path);
    const StoredTensor* ids = file.find("in.input_ids");
    check(ids, "%s: expected a tensor in.input_ids (batch, length)", path.c_str());
    check(ids->shape.rank == 2 && ids->count() > 0, "%s: in.input_ids is %s; expected (batch, length)",
          path.c_str(), ids->shape.text().c_str());
    Inputs in{ids->shape[0].size, ids->shape[1].size, read_as<int32_t>(*ids), {}};
    std::vector<int32_t> targets = in.ids;
    if (const StoredTensor* labels = file.find("labels")) {
        check(labels->shape == ids->shape, "%s: labels are %s, in.input_ids %s", path.c_str(),
              labels->shape.text().c_str(), ids->shape.text().c_str());
        targets = read_as<int32_t>(*labels);
    }
    for (int64_t i = 0; i < in.B * in.S; i++)
        in.labels.push_back((i + 1) % in.S ? targets[size_t(i + 1)] : -1);
    return in;
}

// The outputs live here until they are written.
struct Outputs {
    std::vector<TensorSource> list;
    std::deque<std::vector<float>> floats;
    std::deque<std::vector<int32_t>> integers;
    void add(const std::string& name, Shape shape, std::vector<float> values) {
        floats.push_back(std::move(values));
        list.push_back({name, shape, floats.back().data(), Dtype::f32});
    }
};

struct Recorded {
    Tensor tokens, positions, starts, labels, dloss, logits, loss;
    std::vector<Tensor> auxiliary, seeds; // losses of the model itself and their gradients
};

// `whole`: gradients of the loss with what the model adds to it.
Recorded record(Model& model, int64_t B, int64_t S, const std::vector<Tensor>& parameters, bool whole) {
    Tape& t = tape();
    int64_t T = B * S;
    Recorded r;
    r.tokens = t.input("tokens", {T}, Dtype::i32), r.positions = t.input("positions", {T}, Dtype::i32);
    r.starts = t.input("sequence_starts", {B + 1}, Dtype::i32), r.labels = t.input("labels", {T}, Dtype::i32);
    r.dloss = t.input("dloss", {1}, Dtype::f32);
    Tensor hidden = model.hidden({r.tokens, r.positions, r.starts});
    r.logits = t.keep(model.head_logits(t.detach(hidden)));
    r.loss = t.keep(model.loss(hidden, r.labels).loss);
    if (!parameters.empty()) {
        t.seed(r.loss, r.dloss);
        for (const Auxiliary& a : model.auxiliary) {
            r.auxiliary.push_back(t.keep(a.loss));
            r.seeds.push_back(t.input("dauxiliary", {1}, Dtype::f32));
            if (whole) t.seed(a.loss, r.seeds.back());
        }
        t.backward(parameters);
    }
    return r;
}

void add_gradients(Model& model, const char* prefix, Outputs& out) {
    for (auto& [w, tensor] : model.weights()) {
        if (w.role == Role::buffer) continue;
        for (int64_t i = 0; i < w.parts(); i++) {
            Tensor g = gradient_of(w.stacked() ? slice(tensor, 0, i, i + 1) : tensor);
            HostCopy values(g);
            out.add(prefix + w.part_name(i), w.part_shape(),
                    {values.as<float>(), values.as<float>() + g.shape().numel()});
        }
    }
}

// The pass without and, where the model adds losses, with them.
void train_pass(Model& model, const Inputs& in, bool gradients, Outputs& out, bool whole = false) {
    int64_t T = in.B * in.S, valid = 0;
    std::vector<Tensor> parameters;
    if (gradients) parameters = model.trainable();
    Tape t;
    Recording recording(t);
    if (!gradients) t.no_grad();
    Recorded r = record(model, in.B, in.S, parameters, whole);
    eliminate_dead(t);
    Program program(t);
    auto input = [&](const Tensor& x) { return program.data<int32_t>(x); };
    int32_t *tokens = input(r.tokens), *positions = input(r.positions), *labels = input(r.labels);
    for (int64_t i = 0; i < T; i++) {
        auto k = size_t(i);
        check(in.ids[k] >= 0 && in.ids[k] < model.dims.V,
              "in.input_ids: %d at %ld; the vocabulary has %ld ids", in.ids[k], i, model.dims.V);
        tokens[i] = in.ids[k], positions[i] = int32_t(i % in.S), labels[i] = in.labels[k];
        valid += in.labels[k] >= 0;
    }
    for (int64_t b = 0; b <= in.B; b++) input(r.starts)[b] = int32_t(b * in.S);
    float scale = valid ? 1.0f / float(valid) : 0.0f;
    *program.data<float>(r.dloss) = scale;
    for (size_t i = 0; whole && i < r.seeds.size(); i++)
        *program.data<float>(r.seeds[i]) = float(model.auxiliary[i].coefficient);
    program.run();
    float loss = *program.data<float>(r.loss) * scale;
    if (!whole) {
        float* l = program.data<float>(r.logits);
        out.add("logits", {in.B, in.S, model.dims.V}, {l, l + T * model.dims.V});
        out.add("loss", {1}, {loss});
        if (gradients) add_gradients(model, "grad.", out);
        if (gradients && !r.auxiliary.empty()) train_pass(model, in, gradients, out, true);
        return;
    }
    float added = 0, total = loss;
    for (size_t i = 0; i < r.auxiliary.size(); i++) {
        float value = *program.data<float>(r.auxiliary[i]);
        added += value, total += float(model.auxiliary[i].coefficient) * value;
    }
    out.add("aux_loss", {1}, {added});
    out.add("loss_with_aux", {1}, {total});
    add_gradients(model, "grad_with_aux.", out);
}

void greedy(Model& model, const Inputs& in, int64_t n, Dtype dtype, Outputs& out) {
    Engine engine(model, {.dtype = dtype, .sequences = in.B, .tokens_per_sequence = in.S + n});
    std::vector<std::vector<int32_t>> next(size_t(in.B), std::vector<int32_t>(1));
    std::vector<Engine::Feed> feeds;
    std::vector<int32_t> chosen(size_t(in.B * n));
    std::vector<float> last(size_t(in.B * model.dims.V));
    for (int64_t b = 0; b < in.B; b++)
        feeds.push_back({engine.open(), std::span(in.ids).subspan(size_t(b * in.S), size_t(in.S))});
    for (int64_t step = 0; step < n; step++) {
        engine.feed(feeds, [&](size_t b, int64_t, std::span<const float> logits) {
            auto best =
                std::max_element(logits.begin(), logits.end()) - logits.begin(); // ties: the lowest id
            next[b][0] = chosen[b * size_t(n) + size_t(step)] = int32_t(best);
            std::copy(logits.begin(), logits.end(), last.begin() + long(b) * model.dims.V);
        });
        for (size_t b = 0; b < feeds.size(); b++) feeds[b].tokens = next[b];
    }
    out.integers.push_back(chosen);
    out.list.push_back({"greedy_tokens", {in.B, n}, out.integers.back().data(), Dtype::i32});
    out.add("greedy_logits_last", {in.B, model.dims.V}, last);
}

int run(int argc, char** argv) {
    Args args("forward",
              "Runs a model over given token ids and writes logits, loss, gradients and greedy tokens.");
    auto& path = args.option("model", "", "Hugging Face folder or .gguf file");
    auto& inputs =
        args.option("inputs", "", "safetensors with in.input_ids (batch, length), and labels if they differ");
    auto& output = args.option("output", "", "safetensors file to write");
    auto& gradients = args.flag("gradients", "also write grad.NAME of every weight");
    auto& tokens = args.option("greedy", 0, "continue every row by N greedy tokens, with the cache");
    args.common();
    if (!args.parse(argc, argv)) return 0;
    check(!path.empty() && !inputs.empty() && !output.empty(),
          "expected --model, --inputs and --output; see --help");
    check(tokens >= 0, "--greedy expects 0 or more, found %ld", tokens);
    Inputs in = read_inputs(inputs);
    Store store(device_from(args.device()));
    Dtype dtype = dtype_from(args.dtype());
    auto model = load_model(path, store, dtype, gradients);
    Outputs out;
    train_pass(*model, in, gradients, out);
    if (tokens) greedy(*model, in, tokens, dtype, out);
    write_safetensors(output, out.list);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_main("forward", [&] { return run(argc, argv); });
}
