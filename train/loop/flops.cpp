#include "train/loop/flops.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/base/parallel.h"
#include "engine/base/text.h"
#include "kernels/linear/gemm.h"
#include "train/loop/optimizer.h"
#include "train/loop/step.h"
#include "train/loop/trainer.h"

namespace nvl {

static std::string without_numbers(const std::string& name) {
    std::string out;
    for (const std::string& part : split(name, '.'))
        out += (out.empty() ? "" : ".") + (part.find_first_not_of("0123456789") == part.npos ? "*" : part);
    return out;
}

std::vector<WeightGroup> weight_groups(Model& model) {
    std::vector<WeightGroup> groups;
    bool has_head = false;
    model.each([&](const WeightInfo& w, Tensor&) {
        std::string name = without_numbers(w.name);
        auto it = std::find_if(groups.begin(), groups.end(), [&](auto& g) { return g.name == name; });
        if (it == groups.end())
            it = groups.insert(groups.end(), {name, w.role, 0, 0, w.shape,
                                              w.role == Role::matrix || w.role == Role::head, w.active});
        it->count++, it->elements += w.shape.numel();
        has_head |= w.role == Role::head;
    });
    for (WeightGroup& g : groups) // tied: the token embedding is the head
        if (!has_head && g.role == Role::embedding && g.shape[0].size == model.dims.V) g.multiplies = true;
    return groups;
}

static std::string note(const WeightGroup& g) {
    if (g.active < 1)
        return format("  (a token meets 1/%.4g of %s)", 1 / g.active, with_commas(g.elements).c_str());
    return g.role == Role::embedding ? "  (tied: it is the head)" : "";
}

std::string explain_flops(Model& model, int64_t T) {
    FlopCount f = model.flops(T);
    const Dims& d = model.dims;
    std::string text =
        "FLOPs per token, forward and backward = 6 N + 12 H D sum over layers of min(window, T)\n"
        "  N: elements of every weight that multiplies the token stream (matrices and the head)\n";
    for (const WeightGroup& g : weight_groups(model)) {
        if (!g.multiplies) continue;
        text += format("    %-52s %3ld x %-14s = %15s%s\n", g.name.c_str(), g.count, g.shape.text().c_str(),
                       with_commas(std::llround(double(g.elements) * g.active)).c_str(), note(g).c_str());
    }
    text += format("    N = %s\n", with_commas(f.matmul_weights).c_str());
    std::map<int64_t, int64_t> windows;
    for (int64_t w : d.window) windows[w ? std::min(w, T) : T]++;
    std::string sum;
    for (auto& [w, n] : windows) sum += format("%s%ld layers x %ld", sum.empty() ? "" : " + ", n, w);
    text += format("  attention: H = %ld query heads of D = %ld, T = %ld: %s = %s\n", d.H, d.D, T,
                   sum.c_str(), with_commas(f.attention_tokens).c_str());
    text += format("  worked: 6 x %s + 12 x %ld x %ld x %s = %s + %s = %s FLOPs per token\n",
                   with_commas(f.matmul_weights).c_str(), d.H, d.D, with_commas(f.attention_tokens).c_str(),
                   with_commas(6 * f.matmul_weights).c_str(),
                   with_commas(12 * d.H * d.D * f.attention_tokens).c_str(),
                   with_commas(int64_t(f.per_token)).c_str());
    return text +
           format("  forward alone (a third): %s; generating one token at context T: 2 N + 4 H D sum = %s\n",
                  with_commas(int64_t(f.forward_per_token())).c_str(),
                  with_commas(2 * f.matmul_weights + 4 * d.H * d.D * f.attention_tokens).c_str());
}

std::string explain_run(const TrainConfig& c) {
    auto model = model_of(c, nullptr);
    Dtype dtype = dtype_from(c.dtype);
    Store store; // pages that nothing touches cost nothing
    model->allocate(store, dtype, true);
    Optimizer optimizer(*model, store, c.optimizer);
    int64_t tokens = c.rows * c.row_length, parameters = model->parameters();
    StepProgram step(*model, tokens, c.rows, StepProgram::training, c.row_length);
    int64_t embeddings = 0, vectors = 0;
    for (const WeightGroup& g : weight_groups(*model))
        (g.role == Role::embedding ? embeddings : vectors) +=
            g.role == Role::embedding || g.role == Role::vector || g.role == Role::buffer ? g.elements : 0;
    std::string text =
        format("model      %s, %ld layers, C = %ld, %ld/%ld heads of %ld, F = %ld, V = %ld\n",
               model->config["model_type"].get<std::string>().c_str(), model->dims.layers, model->dims.C,
               model->dims.H, model->dims.G, model->dims.D, model->dims.F, model->dims.V);
    text += format("parameters %s = embeddings %s + matrices %s + vectors %s\n\n",
                   with_commas(parameters).c_str(), with_commas(embeddings).c_str(),
                   with_commas(parameters - embeddings - vectors).c_str(), with_commas(vectors).c_str());
    text += explain_flops(*model, c.row_length) + "\n";
    double per_token = model->flops(c.row_length).per_token,
           per_step = per_token * double(c.tokens_per_step());
    Cost counted = step.program().cost();
    text += format("step       %ld x %ld rows x %ld tokens = %s tokens, %s by the formula\n", c.accumulation,
                   c.rows, c.row_length, with_commas(c.tokens_per_step()).c_str(),
                   human(per_step, "FLOP").c_str());
    text += format("           the recorded micro-batch: %zu steps, %s in matrix products (causal attention "
                   "computes what\n"
                   "           is visible, recompute adds), %s moved\n",
                   step.program().steps().size(), human(counted.flops, "FLOP").c_str(),
                   human(counted.bytes, "B").c_str());
    text += format("run        %s steps, %s tokens, %s; %.1f tokens per parameter\n\n",
                   with_commas(c.steps).c_str(), with_commas(c.steps * c.tokens_per_step()).c_str(),
                   human(per_step * double(c.steps), "FLOP").c_str(),
                   double(c.steps * c.tokens_per_step()) / double(parameters));
    MemoryPlan m{parameters * size_of(dtype), parameters * 4,
                 optimizer.bytes() + optimizer.program().planned_bytes(), step.program().planned_bytes()};
    auto line = [&](const char* kind, int64_t bytes, const char* note) {
        text += format("memory     %-12s %12s  %s\n", kind, human(double(bytes), "B").c_str(), note);
    };
    line("weights", m.weights, c.dtype == "bf16" ? "bf16, what is computed with" : "f32");
    line("gradients", m.gradients, "f32");
    line("optimiser", m.optimizer, c.dtype == "bf16" ? "f32 masters and moments" : "f32 moments");
    line("activations", m.activations, ("one micro-batch, recompute " + c.recompute).c_str());
    line("together", m.total(), "on one device");
    double peak = gemm_peak_gflops(dtype) * 1e9;
    text +=
        format("time       at 50%% of this machine's multiply-add peak (%d threads, %s): %s\n", threads(),
               human(peak, "FLOP/s").c_str(), human_time(per_step * double(c.steps) / peak / 0.5).c_str());
    return text + "mesh       1 device: dp 1, tp 1, pp 1, cp 1, ep 1; nothing is sent\n";
}

} // namespace nvl
