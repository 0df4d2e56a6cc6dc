// plan CONFIG.yaml key=value ...: what a run will cost, before it starts.
#include <cstdio>

#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "train/loop/flops.h"

using namespace nvl;

int main(int argc, char** argv) {
    return run_main("plan", [&] {
        Args args("plan",
                  "Parameters, FLOPs per token with formula and terms, memory by kind, and time of a run.");
        auto& words = args.positional("CONFIG.yaml [key=value ...]", "settings, and changes to them");
        args.common();
        if (!args.parse(argc, argv)) return 0;
        check(!words.empty(), "expected CONFIG.yaml, for example train/configs/speedrun_base.yaml");
        std::vector<std::string> overrides(words.begin() + 1, words.end());
        if (args.given("dtype")) overrides.push_back("dtype=" + args.dtype());
        std::printf("%s", explain_run(read_config(words[0], overrides)).c_str());
        return 0;
    });
}
