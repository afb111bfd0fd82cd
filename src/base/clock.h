// Durations for people and programs.
#pragma once

#include <chrono>

namespace rung {

inline double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace rung
