// What a run tells: metrics.jsonl (one object a step), the progress line, and the numbers in both.
#pragma once
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "train/loop/config.h"

namespace nvl {

struct StepMetrics {
    int64_t step = 0; // counted from 1
    double loss = 0, grad_norm = 0, lr = 0;
    int64_t tokens = 0; // of all steps so far
    double tokens_per_second = 0, mfu = 0;
    double val_bpb = -1, val_loss = -1;                    // negative: not evaluated at this step
    std::vector<std::pair<std::string, double>> auxiliary; // losses of the model itself, unweighted
    std::vector<std::vector<int64_t>> expert_counts;       // per mixture of experts: choices of each expert
    Json to_json() const;
};

/// How evenly a mixture's experts were chosen: entropy of the shares over that of equal ones (1: even, 0: one
/// expert takes all), and the largest share times the number of experts (1: even).
struct ExpertLoad {
    double evenness, largest;
};
ExpertLoad expert_load(const std::vector<int64_t>& counts);

/// Appends to out_dir/metrics.jsonl. A run that resumes after `resumed_step` first drops the lines of later
/// steps and a line that was cut short, and puts back `last`, the resumed step's own, if it was not written.
class MetricsFile {
public:
    MetricsFile(const std::string& out_dir, int64_t resumed_step, const Json& last = nullptr);
    ~MetricsFile();
    MetricsFile(const MetricsFile&) = delete;
    void write(const StepMetrics& m);

private:
    std::string path_;
    std::FILE* file_;
};

/// "step 120/1000  loss 3.2140  lr 3.0e-04  norm 0.81  45,210 tok/s  MFU 41.2%  1m20s left"
std::string progress_line(const StepMetrics& m, int64_t steps, double seconds_left);

} // namespace nvl
