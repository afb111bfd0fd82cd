// Text for people, on standard error. What cannot be written there is dropped: no work may end because the
// terminal, pipe or disk behind it is gone.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string_view>
#include <utility>

namespace rung::cli {

inline void SayText(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

template <class... Args>
void Say(fmt::format_string<Args...> format, Args&&... args) {
  SayText(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace rung::cli
