// The options that say how tokens are drawn, the same for every command that generates.
#pragma once
#include "engine/base/cli.h"
#include "kernels/sample/sample.h"

namespace nvl {

class SamplingOptions {
public:
    /// Declares --temperature, --top-k, --top-p, --min-p, --repetition-penalty and --seed.
    SamplingOptions(Args& args, const SamplingParams& defaults)
        : temperature_(args.option("temperature", defaults.temperature, "0: the likeliest token")),
          top_k_(args.option("top-k", defaults.top_k, "choose among the K likeliest tokens; 0: all")),
          top_p_(args.option("top-p", defaults.top_p, "choose among the likeliest tokens up to this mass")),
          min_p_(args.option("min-p", defaults.min_p,
                             "drop tokens less likely than this share of the likeliest")),
          repetition_(args.option("repetition-penalty", defaults.repetition_penalty,
                                  "above 1: what was said becomes less likely")),
          seed_(args.option("seed", 0, "of the random numbers")) {}
    /// After args.parse().
    SamplingParams params() const {
        return {.temperature = temperature_,
                .top_k = top_k_,
                .top_p = top_p_,
                .min_p = min_p_,
                .repetition_penalty = repetition_};
    }
    uint64_t seed() const { return uint64_t(seed_); }

private:
    double& temperature_;
    int64_t& top_k_;
    double &top_p_, &min_p_, &repetition_;
    int64_t& seed_;
};

} // namespace nvl
