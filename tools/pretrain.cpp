// pretrain CONFIG.yaml key=value ...: trains a language model on text.
#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/parallel.h"
#include "train/loop/trainer.h"

using namespace nvl;

int main(int argc, char** argv) {
    return run_main("pretrain", [&] {
        Args args("pretrain", "Trains a language model on text (.txt, .jsonl, or folders of them).");
        auto& words = args.positional("CONFIG.yaml [key=value ...]", "settings, and changes to them");
        args.common();
        if (!args.parse(argc, argv)) return 0;
        check(!words.empty(), "expected CONFIG.yaml, for example train/configs/tiny.yaml");
        std::vector<std::string> overrides(words.begin() + 1, words.end());
        for (const char* name : {"device", "dtype"})
            if (args.given(name))
                overrides.push_back(std::string(name) + "=" +
                                    (name[1] == 'e' ? args.device() : args.dtype()));
        TrainConfig config = read_config(words[0], overrides);
        if (config.threads > 0 && !args.given("threads")) set_threads(int(config.threads));
        return train(config, prepare_text(config));
    });
}
