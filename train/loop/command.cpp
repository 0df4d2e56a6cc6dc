#include "train/loop/command.h"

#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/parallel.h"

namespace nvl {

int run_train_command(const TrainCommand& command, int argc, char** argv) {
    Args args(command.name, command.summary);
    auto& words = args.positional("CONFIG.yaml [key=value ...]", "settings, and changes to them");
    args.common();
    if (!args.parse(argc, argv)) return 0;
    check(!words.empty(), "expected CONFIG.yaml, for example %s", command.example);
    std::vector<std::string> overrides(words.begin() + 1, words.end());
    if (args.given("device")) overrides.push_back("device=" + args.device());
    if (args.given("dtype")) overrides.push_back("dtype=" + args.dtype());
    TrainConfig config = read_config(words[0], overrides);
    device_from(config.device); // one that cannot be used is told before the data is prepared
    if (config.threads > 0 && !args.given("threads")) set_threads(int(config.threads));
    return train(config, command.prepare(config));
}

} // namespace nvl
