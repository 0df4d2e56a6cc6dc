#include "train/loop/optimizer.h"

#include "engine/base/parallel.h"

namespace nvl {

Optimizer::Optimizer(Model& model, Store& store, const OptimizerConfig& config) : config_(config) {
    int64_t before = store.bytes();
    adamw_step_ = optim_step(store, "adamw"), vector_step_ = optim_step(store, "adamw of vectors");
    muon_step_ = optim_step(store, "muon");
    std::vector<Tensor> gradients;
    for (auto& [info, w] : model.weights()) {
        if (info.role == Role::buffer) continue;
        Slot s{info, w, {}};
        s.decayed = info.role != Role::vector;
        s.muon = config.kind == "muon" && info.role == Role::matrix;
        if (s.muon) {
            MuonState m = muon_state(store, w);
            s.state.m = m.m, s.state.master = m.master;
        } else
            s.state = adamw_state(store, w);
        gradients.push_back(gradient_of(w));
        slots_.push_back(std::move(s));
    }
    bytes_ = store.bytes() - before;

    Recording recording(tape_);
    tape_.phase(Phase::update);
    if (config.measure_norm) {
        norm_ = global_norm(gradients, config.clip);
        tape_.keep(norm_.clip);
    } else {
        norm_.clip = store.tensor("no clip", {2}, Dtype::f64);
        host_write(norm_.clip, [](std::byte* to) { reinterpret_cast<double*>(to)[1] = 1; });
    }
    tape_.segment(1);
    for (size_t i = 0; i < slots_.size(); i++) {
        const Slot& s = slots_[i];
        if (s.muon)
            muon(s.weight, {s.state.m, s.state.master}, gradients[i], muon_step_, norm_.clip);
        else
            adamw(s.weight, s.state, gradients[i], s.decayed ? adamw_step_ : vector_step_, norm_.clip);
    }
    program_ = std::make_unique<Program>(tape_);
}

double Optimizer::gradient_norm() {
    program_->run({.segment = 0});
    return *program_->data<double>(norm_.clip);
}

void Optimizer::update(int64_t step, double lr_factor) {
    OptimStep s{.lr = config_.lr * lr_factor,
                .weight_decay = config_.weight_decay,
                .beta1 = config_.beta1,
                .beta2 = config_.beta2,
                .eps = config_.eps,
                .step = double(step + 1)};
    set_step(adamw_step_, s);
    OptimStep vectors = s, matrices = s;
    vectors.weight_decay = 0;
    set_step(vector_step_, vectors);
    matrices.lr = config_.muon_lr * lr_factor, matrices.beta1 = config_.momentum;
    set_step(muon_step_, matrices);
    program_->run({.segment = 1});
}

Tensor Optimizer::master(const Tensor& weight) const {
    for (const Slot& s : slots_)
        if (s.weight.buffer == weight.buffer) return s.state.master ? s.state.master : s.weight;
    if (!weight.buffer->needs_grad) return weight; // a buffer of the model
    fail("optimiser: %s is not one of its weights", weight.name());
}

std::vector<TensorSource> Optimizer::state() const {
    std::vector<TensorSource> all;
    for (const Slot& s : slots_) {
        all.emplace_back(s.info.name + ".m", s.info.shape, s.state.m);
        if (s.state.v) all.emplace_back(s.info.name + ".v", s.info.shape, s.state.v);
    }
    return all;
}

void Optimizer::load_state(const std::string& path) {
    Checkpoint file(path);
    auto load = [&](const Slot& s, const char* suffix, const Tensor& to) {
        const StoredTensor& stored = file.at(s.info.name + suffix);
        check(stored.shape == s.info.shape, "%s: %s is %s, the model has %s", path.c_str(),
              stored.name.c_str(), stored.shape.text().c_str(), s.info.shape.text().c_str());
        host_write(to, [&](std::byte* data) { convert(stored, Dtype::f32, data); });
    };
    for (const Slot& s : slots_) {
        load(s, ".m", s.state.m);
        if (s.state.v) load(s, ".v", s.state.v);
    }
}

} // namespace nvl
