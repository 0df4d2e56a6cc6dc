#include "train/loop/metrics.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/io/file.h"

namespace nvl {

MetricsFile::MetricsFile(const std::string& out_dir, int64_t resumed_step, const Json& last)
    : path_(out_dir + "/metrics.jsonl") {
    std::string kept;
    int64_t newest = 0;
    if (resumed_step > 0 && exists(path_))
        for (const std::string& line : split(read_file(path_), '\n')) {
            Json j = Json::parse(line, nullptr, false);
            if (!j.is_object() || !j.contains("step") || !j["step"].is_number_integer()) continue;
            if (j["step"].get<int64_t>() > resumed_step) continue;
            kept += line + "\n", newest = j["step"];
        }
    if (resumed_step > newest && last.is_object()) kept += last.dump() + "\n";
    write_file(path_, kept);
    file_ = std::fopen(path_.c_str(), "a");
    check(file_, "%s: cannot write: %s", path_.c_str(), std::strerror(errno));
}
MetricsFile::~MetricsFile() { std::fclose(file_); }

ExpertLoad expert_load(const std::vector<int64_t>& counts) {
    double total = 0, entropy = 0, most = 0, E = double(counts.size());
    for (int64_t n : counts) total += double(n), most = std::max(most, double(n));
    for (int64_t n : counts)
        if (n > 0) entropy -= double(n) / total * std::log(double(n) / total);
    return {E > 1 ? entropy / std::log(E) : 1, total > 0 ? most * E / total : 1};
}

Json StepMetrics::to_json() const {
    Json j{{"step", step}, {"loss", loss}, {"grad_norm", grad_norm}, {"lr", lr}, {"tokens", tokens}};
    j["tokens_per_second"] = tokens_per_second, j["mfu"] = mfu;
    for (auto& [name, value] : auxiliary) j["auxiliary"][name] = value;
    for (const std::vector<int64_t>& counts : expert_counts) {
        ExpertLoad load = expert_load(counts);
        j["experts"].push_back({{"counts", counts}, {"evenness", load.evenness}, {"largest", load.largest}});
    }
    if (val_bpb >= 0) j["val_bpb"] = val_bpb, j["val_loss"] = val_loss;
    return j;
}

void MetricsFile::write(const StepMetrics& m) {
    std::string line = m.to_json().dump() + "\n";
    bool ok = std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0;
    check(ok, "%s: cannot write: %s", path_.c_str(), std::strerror(errno));
}

std::string progress_line(const StepMetrics& m, int64_t steps, double seconds_left) {
    std::string text =
        format("step %ld/%ld  loss %.4f  lr %.2e  norm %.3f  %s tok/s  MFU %.1f%%  %s left", m.step, steps,
               m.loss, m.lr, m.grad_norm, with_commas(int64_t(m.tokens_per_second)).c_str(), 100 * m.mfu,
               human_time(seconds_left).c_str());
    if (m.val_bpb >= 0) text += format("  val %.4f bits per byte", m.val_bpb);
    return text;
}

} // namespace nvl
