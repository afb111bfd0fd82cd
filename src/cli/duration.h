// How long something takes, for people.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace rung::cli {

// "12.3 s", "3 min 04 s", "1 h 02 min"; less than nothing is "0.0 s", what is no number "-".
inline std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  // What would be rounded to a minute is one.
  if (seconds < 59.95) return fmt::format("{:.1f} s", std::max(0.0, seconds));
  const auto s = std::llround(std::min(seconds, 1e12));
  return s < 3600 ? fmt::format("{} min {:02} s", s / 60, s % 60)
                  : fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

}  // namespace rung::cli
