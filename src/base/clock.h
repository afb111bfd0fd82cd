// Durations and the time of day, for people and programs.
#pragma once

#include <chrono>
#include <string>

namespace rung {

inline double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::string UtcNow();  // as ISO 8601 to the second: "2026-01-31T09:00:00Z"

// Seconds since the kernel started this process, in steps of 10 ms; 0 when unknown.
double SecondsSinceProcessStart();

}  // namespace rung
