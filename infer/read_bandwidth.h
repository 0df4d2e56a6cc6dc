// What memory gives at best: the floor under the time of one decode step, which reads every weight once.
#pragma once

namespace nvl {

/// Bytes per second that all threads read from memory far larger than the caches; best of 3.
double read_bandwidth();

} // namespace nvl
