#include "train/loop/schedule.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace nvl {

void validate(const Schedule& s) {
    const std::vector<std::string> kinds{"constant", "linear", "cosine", "wsd"};
    bool known = std::find(kinds.begin(), kinds.end(), s.kind) != kinds.end();
    std::string near = known ? "" : nearest(s.kind, kinds);
    check(known, "schedule.kind: expected constant, linear, cosine or wsd, found \"%s\"%s", s.kind.c_str(),
          near.empty() ? "" : ("; did you mean " + near + "?").c_str());
    check(s.warmup >= 0, "schedule.warmup: expected a number of steps, found %ld", s.warmup);
    check(s.final_fraction >= 0 && s.final_fraction <= 1, "schedule.final: expected 0 to 1, found %g",
          s.final_fraction);
    check(s.decay > 0 && s.decay <= 1, "schedule.decay: expected a share of the steps in (0, 1], found %g",
          s.decay);
}

double Schedule::factor(int64_t step) const {
    if (step < warmup) return double(step + 1) / double(warmup);
    if (kind == "constant") return 1;
    int64_t from =
        kind == "wsd" ? std::max(warmup, steps - int64_t(std::llround(decay * double(steps)))) : warmup;
    double t = std::clamp(double(step - from) / double(std::max<int64_t>(1, steps - 1 - from)), 0.0, 1.0);
    if (kind == "cosine")
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + std::cos(3.141592653589793 * t));
    return 1 + (final_fraction - 1) * t;
}

} // namespace nvl
