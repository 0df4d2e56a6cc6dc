// inspect program CONFIG.yaml | inspect model PATH: the recorded step as a listing, and what a model is made
// of.
#include <cstdio>

#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/text.h"
#include "models/checkpoint.h"
#include "train/loop/flops.h"
#include "train/loop/optimizer.h"
#include "train/loop/step.h"
#include "train/loop/trainer.h"

using namespace nvl;

namespace {

void print_program(const TrainConfig& c) {
    auto model = model_of(c, nullptr);
    Store store;
    model->allocate(store, dtype_from(c.dtype), true);
    StepProgram step(*model, c.rows * c.row_length, c.rows, StepProgram::training, c.row_length);
    Optimizer optimizer(*model, store, c.optimizer);
    std::printf("One micro-batch: forward and backward of %ld tokens\n%s\nThe optimiser\n%s",
                c.rows * c.row_length, step.program().listing().c_str(),
                optimizer.program().listing().c_str());
}

void print_model(const std::string& path) {
    auto model = open_model(path);
    const Dims& d = model->dims;
    std::printf("%s: %s, %s parameters, %ld layers, C = %ld, %ld/%ld heads of %ld, F = %ld, V = %ld, %ld "
                "positions\n\n",
                path.c_str(), model->config["model_type"].get<std::string>().c_str(),
                with_commas(model->parameters()).c_str(), d.layers, d.C, d.H, d.G, d.D, d.F, d.V, d.context);
    for (const WeightGroup& g : weight_groups(*model))
        std::printf("%4ld x %-52s %-18s %15s\n", g.count, g.name.c_str(), g.shape.text().c_str(),
                    with_commas(g.elements).c_str());
    std::printf("\n%s", explain_flops(*model, d.context).c_str());
}

} // namespace

int main(int argc, char** argv) {
    return run_main("inspect", [&] {
        Args args("inspect",
                  "inspect program CONFIG.yaml [key=value ...]: the recorded step, forward and backward.\n"
                  "inspect model PATH: dimensions, weights and FLOPs of a model folder or GGUF file.");
        auto& words = args.positional("program CONFIG.yaml | model PATH", "what to show");
        args.common();
        if (!args.parse(argc, argv)) return 0;
        check(words.size() >= 2 && (words[0] == "program" || words[0] == "model"),
              "expected \"program CONFIG.yaml\" or \"model PATH\"");
        std::vector<std::string> overrides(words.begin() + 2, words.end());
        if (args.given("dtype")) overrides.push_back("dtype=" + args.dtype());
        if (words[0] == "program")
            print_program(read_config(words[1], overrides));
        else
            print_model(words[1]);
        return 0;
    });
}
