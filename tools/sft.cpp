// sft CONFIG.yaml key=value ...: tunes a model on conversations and made-up tasks.
#include "engine/base/cli.h"
#include "train/loop/command.h"

using namespace nvl;

int main(int argc, char** argv) {
    return run_main("sft", [&] {
        return run_train_command({.name = "sft",
                                  .summary =
                                      "Tunes a model on conversations (.jsonl) and made-up tasks: spelling, "
                                      "counting, arithmetic, identity.",
                                  .example = "train/configs/speedrun_sft.yaml",
                                  .prepare = prepare_chat},
                                 argc, argv);
    });
}
