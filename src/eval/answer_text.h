// Answers as text.
#pragma once

#include <string>
#include <string_view>

namespace rung::eval {

// Without the ASCII whitespace at both ends.
inline std::string Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

}  // namespace rung::eval
