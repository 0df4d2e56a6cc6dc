// sft CONFIG.yaml key=value ...: tunes a model on conversations and made-up tasks.
#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/parallel.h"
#include "train/loop/trainer.h"

using namespace nvl;

int main(int argc, char** argv) {
    return run_main("sft", [&] {
        Args args("sft", "Tunes a model on conversations (.jsonl) and made-up tasks: spelling, counting, "
                         "arithmetic, identity.");
        auto& words = args.positional("CONFIG.yaml [key=value ...]", "settings, and changes to them");
        args.common();
        if (!args.parse(argc, argv)) return 0;
        check(!words.empty(), "expected CONFIG.yaml, for example train/configs/speedrun_sft.yaml");
        std::vector<std::string> overrides(words.begin() + 1, words.end());
        for (const char* name : {"device", "dtype"})
            if (args.given(name))
                overrides.push_back(std::string(name) + "=" +
                                    (name[1] == 'e' ? args.device() : args.dtype()));
        TrainConfig config = read_config(words[0], overrides);
        if (config.threads > 0 && !args.given("threads")) set_threads(int(config.threads));
        return train(config, prepare_chat(config));
    });
}
