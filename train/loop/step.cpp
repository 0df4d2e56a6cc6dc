#include "train/loop/step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/tape/passes.h"

namespace nvl {

StepProgram::StepProgram(Model& model, int64_t tokens, int64_t max_sequences, Kind kind, int64_t row_length)
    : capacity_(tokens), max_sequences_(max_sequences) {
    Recording recording(tape_);
    Dim T = tape_.capacity(tokens);
    batch_.tokens = tape_.input("tokens", {T}, Dtype::i32);
    batch_.positions = tape_.input("positions", {T}, Dtype::i32);
    batch_.sequence_starts = tape_.input("sequence_starts", {max_sequences + 1}, Dtype::i32);
    batch_.row_length = row_length;
    if (kind != training) tape_.no_grad();
    Tensor hidden = model.hidden(batch_);
    labels_ = tape_.input("labels", {T}, Dtype::i32);
    {
        Module here("loss");
        CrossEntropy r = model.loss(hidden, labels_, {.fuse_backward = kind == training});
        loss_ = tape_.keep(r.loss);
        if (kind == evaluation) token_ = tape_.keep(r.token);
    }
    if (kind == training) {
        dloss_ = tape_.input("dloss", {1}, loss_.dtype());
        tape_.seed(loss_, dloss_);
        for (const Auxiliary& a : model.auxiliary) {
            auxiliary_.push_back({a, tape_.input("dauxiliary", {1}, a.loss.dtype())});
            tape_.seed(tape_.keep(a.loss), auxiliary_.back().seed);
        }
        for (const Tensor& counts : model.expert_counts) expert_counts_.push_back(tape_.keep(counts));
        tape_.backward(model.trainable());
    }
    eliminate_dead(tape_);
    program_ = std::make_unique<Program>(tape_);
}

void StepProgram::fill(const TokenBatch& batch, double dloss) {
    auto n = int64_t(batch.tokens.size());
    auto sequences = int64_t(batch.sequence_starts.size()) - 1;
    check(n <= capacity_ && sequences <= max_sequences_,
          "training step: the batch has %ld tokens in %ld sequences, planned were %ld in %ld", n, sequences,
          capacity_, max_sequences_);
    auto copy = [&](const Tensor& to, const std::vector<int32_t>& from) {
        std::memcpy(program_->data<int32_t>(to), from.data(), from.size() * 4);
    };
    copy(batch_.tokens, batch.tokens);
    copy(batch_.positions, batch.positions);
    copy(batch_.sequence_starts, batch.sequence_starts);
    auto* starts = program_->data<int32_t>(batch_.sequence_starts);
    std::fill(starts + sequences + 1, starts + max_sequences_ + 1, int32_t(n));
    copy(labels_, batch.labels);
    if (!dloss_) return;
    put(dloss_, dloss);
    // The losses of the model itself are means: a micro-batch counts by its share of the valid tokens.
    auto valid = std::count_if(batch.labels.begin(), batch.labels.end(), [](int32_t l) { return l >= 0; });
    for (const Seeded& a : auxiliary_) put(a.seed, a.loss.coefficient * dloss * double(valid));
}

void StepProgram::put(const Tensor& t, double value) {
    if (t.dtype() == Dtype::f64)
        *program_->data<double>(t) = value;
    else
        *program_->data<float>(t) = float(value);
}
double StepProgram::get(const Tensor& t) const {
    return t.dtype() == Dtype::f64 ? *program_->data<double>(t) : double(*program_->data<float>(t));
}

std::vector<std::pair<std::string, double>> StepProgram::auxiliary() const {
    std::vector<std::pair<std::string, double>> all;
    for (const Seeded& a : auxiliary_) all.push_back({a.loss.name, get(a.loss.loss)});
    return all;
}
std::vector<std::vector<int64_t>> StepProgram::expert_counts() const {
    std::vector<std::vector<int64_t>> all;
    for (const Tensor& t : expert_counts_) {
        const float* counts = program_->data<float>(t);
        all.emplace_back(counts, counts + t.shape().numel());
    }
    return all;
}

double StepProgram::run(const TokenBatch& batch, double dloss, bool first, Run options) {
    fill(batch, dloss);
    options.first = first;
    options.counts = {int64_t(batch.tokens.size())};
    program_->run(options);
    return get(loss_);
}

float StepProgram::token_loss(int64_t i) const { return program_->data<float>(token_)[i]; }
static bool finite(const View& v) {
    bool computed = v && (v.dtype == Dtype::f64 || v.dtype == Dtype::f32 || v.dtype == Dtype::bf16);
    if (!computed) return true;
    bool all = true;
    dispatch(v.dtype, [&]<class X> {
        for (int64_t i = 0; all && i < v.rows(); i++)
            for (int64_t c = 0; c < v.cols(); c++) all &= bool(std::isfinite(sum_t<X>(v.row<X>(i)[c])));
    });
    return all;
}

std::string StepProgram::find_non_finite(const TokenBatch& batch, double dloss) {
    std::string found;
    std::function<void(size_t)> look = [&](size_t i) {
        const Step& s = program_->steps()[i];
        for (bool weights : {true, false}) // a bad weight is the cause of a bad output
            for (const Argument& a : s.args) {
                if (!found.empty() || !a.tensor || writes(a.use) == weights) continue;
                if ((weights && a.tensor.buffer->tape) || finite(program_->host_view(a.tensor))) continue;
                found = format("%s%s in %s%s%s", weights ? "weight " : "", a.tensor.name(), s.path.c_str(),
                               s.path.empty() ? "" : ": ", s.kernel);
            }
    };
    run(batch, dloss, true, {.after_step = &look});
    return found;
}

} // namespace nvl
