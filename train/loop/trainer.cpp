#include "train/loop/trainer.h"

#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>

#include "engine/base/clock.h"
#include "engine/base/parallel.h"
#include "engine/base/text.h"
#include "engine/io/file.h"
#include "infer/generate.h"
#include "kernels/linear/gemm.h"
#include "models/checkpoint.h"

namespace nvl {

static volatile std::sig_atomic_t stop_asked = 0;
static void ask_to_stop(int) { stop_asked = 1; }

std::unique_ptr<Model> model_of(const TrainConfig& c, const Tokenizer* tokenizer) {
    std::unique_ptr<Model> model;
    if (!c.init_from.empty())
        model = open_model(c.init_from);
    else if (c.model.is_string())
        model = open_model(c.model.get<std::string>());
    else {
        check(c.model.is_object(),
              "model: give a block like a config.json, the folder of a model, or init_from");
        Json json = c.model;
        if (!json.contains("vocab_size"))
            json["vocab_size"] = tokenizer ? int64_t(tokenizer->size()) : c.tokenizer_vocab;
        if (tokenizer && tokenizer->bos() >= 0 && !json.contains("bos_token_id"))
            json["bos_token_id"] = tokenizer->bos();
        if (tokenizer && tokenizer->eos() >= 0 && !json.contains("eos_token_id"))
            json["eos_token_id"] = tokenizer->eos();
        model = make_model(json);
    }
    check(!tokenizer || model->dims.V >= tokenizer->size(),
          "the tokenizer has %d ids, the model's vocab_size is %ld; they must come from the same run",
          tokenizer ? tokenizer->size() : 0, model->dims.V);
    check(c.row_length <= model->dims.context, "data.row_length is %ld, the model has %ld positions",
          c.row_length, model->dims.context);
    model->recompute = Recompute::parse(c.recompute);
    return model;
}

Trainer::Trainer(TrainConfig config, TrainingData data) : config_(std::move(config)), data_(std::move(data)) {
    model_ = model_of(config_, data_.tokenizer.get());
    Dtype dtype = dtype_from(config_.dtype);
    std::optional<std::string> checkpoint = newest_checkpoint(config_.out_dir);
    check(config_.resume || !checkpoint,
          "%s holds %s of an earlier run; pass resume=true to go on from there, or another out_dir",
          config_.out_dir.c_str(), checkpoint ? std::filesystem::path(*checkpoint).filename().c_str() : "");
    make_directories(config_.out_dir);
    remove_leftovers(config_.out_dir);
    model_->allocate(store_, dtype, true);
    bool resumed = config_.resume && checkpoint;
    if (!resumed && config_.init_from.empty()) model_->initialise(uint64_t(config_.seed));
    optimizer_ = std::make_unique<Optimizer>(*model_, store_, config_.optimizer);
    if (resumed)
        resume_from(*checkpoint);
    else if (!config_.init_from.empty())
        load_values(config_.init_from);
    int64_t sequences = data_.train->max_sequences_per_row() * config_.rows;
    step_ = std::make_unique<StepProgram>(*model_, config_.rows * config_.row_length, sequences,
                                          StepProgram::training, config_.row_length);
    peak_flops_ = store_.device() == Device::cpu
                      ? gemm_peak_gflops(dtype) * 1e9
                      : backend_of(store_.device()).peak_flops(dtype == Dtype::bf16);
    flops_per_token_ = model_->flops(config_.row_length).per_token;
}

// Compute weights, and the f32 masters that they are rounded from.
void Trainer::load_values(const std::string& path) {
    load_weights(*model_, path, [&](const WeightInfo&, const Tensor& w) { return optimizer_->master(w); });
}

void Trainer::resume_from(const std::string& checkpoint) {
    TrainerState s = read_trainer_state(checkpoint);
    std::string changed = difference_that_matters(s.config, config_.to_json());
    check(changed.empty(), "%s: cannot be continued with this config: %s", checkpoint.c_str(),
          changed.c_str());
    check(s.tokenizer == data_.tokenizer->hash(),
          "%s: was trained with another tokenizer than that of the data", checkpoint.c_str());
    check(s.rows_per_epoch == data_.train->rows(), "%s: was trained on data of %ld rows, now there are %ld",
          checkpoint.c_str(), s.rows_per_epoch, data_.train->rows());
    check(open_model(checkpoint)->parameters() == model_->parameters(),
          "%s: holds another model than the config", checkpoint.c_str());
    load_values(checkpoint);
    optimizer_->load_state(checkpoint + "/optimizer.safetensors");
    start_ = saved_ = s.step, seconds_ = s.seconds, resumed_metrics_ = s.metrics;
}

void Trainer::print_plan() const {
    const Program& p = step_->program();
    Cost micro = p.cost(), update = optimizer_->program().cost();
    double A = double(config_.accumulation);
    std::printf("%s", data_.report.c_str());
    std::printf("model: %s, %s parameters, %s\n", model_->config["model_type"].get<std::string>().c_str(),
                with_commas(model_->parameters()).c_str(), config_.dtype.c_str());
    std::printf("step: %ld x %ld rows of %ld tokens = %s tokens, %s, moves %s\n", config_.accumulation,
                config_.rows, config_.row_length, with_commas(config_.tokens_per_step()).c_str(),
                human(micro.flops * A + update.flops, "FLOP").c_str(),
                human(micro.bytes * A + update.bytes, "B").c_str());
    int64_t activations = p.planned_bytes(),
            state = optimizer_->bytes() + optimizer_->program().planned_bytes();
    int64_t weights = store_.bytes() - optimizer_->bytes();
    std::printf("memory: weights and gradients %s, optimiser %s, activations %s, together %s\n",
                human(double(weights), "B").c_str(), human(double(state), "B").c_str(),
                human(double(activations), "B").c_str(),
                human(double(weights + state + activations), "B").c_str());
    std::string machine = store_.device() == Device::cpu ? format("%d threads", threads())
                                                         : backend_of(store_.device()).description();
    std::printf(
        "machine: %s, multiply-add peak %s; an epoch is %s steps\n", machine.c_str(),
        human(peak_flops_, "FLOP/s").c_str(),
        with_commas((data_.train->rows() + config_.rows_per_step() - 1) / config_.rows_per_step()).c_str());
    if (start_) std::printf("resumed from %s\n", checkpoint_folder(config_.out_dir, start_).c_str());
    std::fflush(stdout);
}

// Of one micro-batch: means of the model's own losses, sums of what its experts were chosen.
static void add_model_metrics(StepMetrics& m, const StepProgram& step, int64_t parts) {
    auto losses = step.auxiliary();
    auto counts = step.expert_counts();
    m.auxiliary.resize(losses.size()), m.expert_counts.resize(counts.size());
    for (size_t i = 0; i < losses.size(); i++) {
        m.auxiliary[i].first = losses[i].first;
        m.auxiliary[i].second += losses[i].second / double(parts);
    }
    for (size_t l = 0; l < counts.size(); l++) {
        m.expert_counts[l].resize(counts[l].size());
        for (size_t e = 0; e < counts[l].size(); e++) m.expert_counts[l][e] += counts[l][e];
    }
}

StepMetrics Trainer::one_step(int64_t step) {
    int64_t first_row = step * config_.rows_per_step();
    int64_t valid = data_.train->valid(first_row, config_.rows_per_step());
    check(valid > 0, "step %ld: none of its %ld tokens is to be learned", step + 1,
          config_.tokens_per_step());
    double scale = 1.0 / double(valid), sum = 0, begin = seconds_now();
    StepMetrics m;
    for (int64_t i = 0; i < config_.accumulation; i++) {
        sum += step_->run(data_.train->batch(first_row + i * config_.rows, config_.rows), scale, i == 0);
        add_model_metrics(m, *step_, config_.accumulation);
    }
    m.step = step + 1, m.loss = sum * scale, m.grad_norm = optimizer_->gradient_norm();
    if (!std::isfinite(m.loss)) stop_non_finite(step, scale, "loss");
    if (!std::isfinite(m.grad_norm)) stop_non_finite(step, scale, "gradient norm");
    double factor = config_.schedule.factor(step);
    m.lr = config_.optimizer.lr * factor;
    optimizer_->update(step, factor);
    double seconds = seconds_now() - begin;
    seconds_ += seconds;
    m.tokens = (step + 1) * config_.tokens_per_step();
    m.tokens_per_second = double(config_.tokens_per_step()) / seconds;
    m.mfu = flops_per_token_ * m.tokens_per_second / peak_flops_;
    return m;
}

// Runs the step's micro-batches again, looking at what every kernel writes.
void Trainer::stop_non_finite(int64_t step, double scale, const char* what) {
    int64_t first_row = step * config_.rows_per_step();
    std::string found;
    for (int64_t i = 0; i < config_.accumulation && found.empty(); i++)
        found = step_->find_non_finite(data_.train->batch(first_row + i * config_.rows, config_.rows), scale);
    fail("step %ld: the %s is not finite; first NaN or infinity: %s. The weights are those of step %ld; "
         "lower the "
         "learning rate, clip, or look at the data",
         step + 1, what, found.empty() ? "the sum over micro-batches" : found.c_str(), step);
}

Validation Trainer::validate() {
    Validation v;
    if (!data_.validation) return v;
    const PackedDataset& d = *data_.validation;
    int64_t rows = std::min(config_.eval_rows, d.rows()), at_once = std::min(config_.rows, rows);
    if (!evaluation_)
        evaluation_ =
            std::make_unique<StepProgram>(*model_, at_once * config_.row_length,
                                          d.max_sequences_per_row() * at_once, StepProgram::evaluation);
    double nats = 0, byte_nats = 0;
    int64_t bytes = 0;
    for (int64_t first = 0; first < rows; first += at_once) {
        TokenBatch b = d.ordered(first, std::min(at_once, rows - first));
        nats += evaluation_->run(b);
        for (size_t i = 0; i < b.labels.size(); i++) {
            if (b.labels[i] < 0) continue;
            v.tokens++;
            int n = data_.tokenizer->bytes_of(b.labels[i]);
            if (n > 0) bytes += n, byte_nats += evaluation_->token_loss(int64_t(i));
        }
    }
    v.loss = v.tokens ? nats / double(v.tokens) : 0;
    v.bits_per_byte = bytes ? byte_nats / (std::log(2.0) * double(bytes)) : 0;
    return v;
}

void Trainer::save(const StepMetrics& m) {
    if (saved_ == m.step) return;
    TrainerState s{m.step,
                   m.step * config_.rows_per_step(),
                   data_.tokenizer->hash(),
                   data_.train->rows(),
                   seconds_,
                   config_.to_json(),
                   m.to_json()};
    write_checkpoint_of(config_.out_dir, s, *model_, *optimizer_, data_.tokenizer_folder, config_.keep_last);
    saved_ = m.step;
}

void Trainer::sample(int64_t step) {
    if (config_.prompts.empty()) return;
    std::vector<Request> requests;
    int64_t longest = 0;
    for (size_t i = 0; i < config_.prompts.size(); i++) {
        Request r;
        r.prompt = data_.tokenizer->encode(config_.prompts[i]);
        if (data_.tokenizer->bos() >= 0) r.prompt.insert(r.prompt.begin(), data_.tokenizer->bos());
        r.prompt.resize(
            std::min(r.prompt.size(), size_t(model_->dims.context) - 1)); // samples never stop a run
        if (r.prompt.empty()) continue;
        r.sampling.temperature = 0.8, r.seed = uint64_t(config_.seed), r.stream = i;
        r.max_tokens = config_.sample_tokens;
        longest = std::max(longest, int64_t(r.prompt.size()) + r.max_tokens);
        requests.push_back(std::move(r));
    }
    if (requests.empty()) return;
    Engine engine(*model_, {.dtype = dtype_from(config_.dtype),
                            .sequences = int64_t(requests.size()),
                            .tokens_per_sequence = std::min(longest, model_->dims.context)});
    std::vector<Generation> answers = Generator(engine, data_.tokenizer.get()).run(requests);
    Json j{{"step", step}, {"samples", Json::array()}};
    for (size_t i = 0; i < answers.size(); i++) {
        const std::string& prompt = config_.prompts[requests[i].stream];
        std::printf("  | %s%s\n", prompt.c_str(), answers[i].text.c_str());
        j["samples"].push_back({prompt, answers[i].text});
    }
    std::string path = config_.out_dir + "/samples.jsonl";
    write_file(path, (exists(path) ? read_file(path) : "") + j.dump() + "\n");
}

void Trainer::write_summary(double seconds, const StepMetrics& last) const {
    Json j{{"steps", config_.steps},
           {"parameters", model_->parameters()},
           {"tokens", config_.steps * config_.tokens_per_step()},
           {"seconds", seconds_},
           {"wall_seconds", seconds},
           {"loss", last.loss},
           {"val_loss", last_validation_.loss},
           {"val_bpb", last_validation_.bits_per_byte},
           {"flops_per_token", flops_per_token_},
           {"peak_flops", peak_flops_},
           {"weights_bytes", store_.bytes()},
           {"activation_bytes", step_->program().planned_bytes()},
           {"checkpoint", checkpoint_folder(config_.out_dir, config_.steps)},
           {"threads", threads()},
           {"data", data_.report},
           {"config", config_.to_json()}};
    write_file(config_.out_dir + "/summary.json", j.dump(2) + "\n");
}

bool Trainer::run() {
    double begin = seconds_now();
    print_plan();
    MetricsFile metrics(config_.out_dir, start_, resumed_metrics_);
    StepMetrics m;
    auto due = [](int64_t every, int64_t step) { return every > 0 && step % every == 0; };
    for (int64_t step = start_; step < config_.steps; step++) {
        m = one_step(step);
        losses_.push_back(m.loss);
        bool last = m.step == config_.steps, stopping = stop_asked;
        if (last || stopping || due(config_.save_every, m.step)) save(m);
        if (!stopping && data_.validation &&
            (due(config_.eval_every, m.step) || (last && config_.eval_every))) {
            last_validation_ = validate();
            m.val_bpb = last_validation_.bits_per_byte, m.val_loss = last_validation_.loss;
        }
        metrics.write(m);
        double left = (seconds_now() - begin) / double(m.step - start_) * double(config_.steps - m.step);
        if (last || stopping || due(config_.log_every, m.step) || m.val_bpb >= 0)
            std::printf("%s\n", progress_line(m, config_.steps, left).c_str());
        if (!stopping && (due(config_.sample_every, m.step) || (last && config_.sample_every)))
            sample(m.step);
        std::fflush(stdout);
        if (stopping && !last) {
            std::printf("stopped after step %ld; resume=true goes on from %s\n", m.step,
                        checkpoint_folder(config_.out_dir, m.step).c_str());
            return false;
        }
    }
    if (start_ >= config_.steps) { // nothing was left to do but what came after the last checkpoint
        check(start_ == config_.steps, "%s is beyond steps = %ld",
              checkpoint_folder(config_.out_dir, start_).c_str(), config_.steps);
        m.loss = resumed_metrics_.value("loss", 0.0);
        if (config_.eval_every) last_validation_ = validate();
    }
    if (m.step || !exists(config_.out_dir + "/summary.json")) write_summary(seconds_now() - begin, m);
    std::printf("done: %s\n", checkpoint_folder(config_.out_dir, config_.steps).c_str());
    return true;
}

int train(const TrainConfig& config, TrainingData data) {
    struct sigaction action {};
    action.sa_handler = ask_to_stop;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    Trainer trainer(config, std::move(data));
    trainer.run();
    return 0;
}

} // namespace nvl
