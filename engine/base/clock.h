// Wall time for progress lines, speeds and benchmarks. Results never depend on it.
#pragma once
#include <chrono>

namespace nvl {

/// Seconds of a clock that only goes forward, from an arbitrary beginning.
inline double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

} // namespace nvl
