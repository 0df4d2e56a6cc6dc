// pretrain CONFIG.yaml key=value ...: trains a language model on text.
#include "engine/base/cli.h"
#include "train/loop/command.h"

using namespace nvl;

int main(int argc, char** argv) {
    return run_main("pretrain", [&] {
        return run_train_command(
            {.name = "pretrain",
             .summary = "Trains a language model on text (.txt, .jsonl, or folders of them).",
             .example = "train/configs/tiny.yaml",
             .prepare = prepare_text},
            argc, argv);
    });
}
