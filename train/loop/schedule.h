// Learning-rate schedules: a factor in [0, 1] as a function of the step.
//
//   warm-up    (step + 1) / warmup                    for step < warmup
//   constant   1
//   linear     1 -> final                             straight to the last step
//   cosine     final + (1 - final) (1 + cos(pi t)) / 2       t from 0 after the warm-up to 1 at the end
//   wsd        1, then straight to final over the last `decay` share of the steps (warm-up, stable, decay)
#pragma once
#include <cstdint>
#include <string>

namespace nvl {

struct Schedule {
    std::string kind = "cosine";
    int64_t steps = 1, warmup = 0;
    double final_fraction = 0.1, decay = 0.2;
    /// Of step 0 .. steps - 1.
    double factor(int64_t step) const;
};

/// An unknown kind, or numbers outside their range, are errors.
void validate(const Schedule& schedule);

} // namespace nvl
