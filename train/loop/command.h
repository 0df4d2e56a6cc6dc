// The body of the commands that train: `pretrain` and `sft` differ in the data they prepare.
#pragma once
#include "train/loop/trainer.h"

namespace nvl {

struct TrainCommand {
    const char *name, *summary, *example; // of a config
    TrainingData (*prepare)(const TrainConfig&);
};

/// NAME CONFIG.yaml [key=value ...] [options]: reads the config, prepares the data, trains until done or
/// stopped.
int run_train_command(const TrainCommand& command, int argc, char** argv);

} // namespace nvl
