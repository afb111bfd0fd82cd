#include "base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <utility>
#include <vector>

namespace rung {
namespace {

// Bytes of the character that `bytes` begins with, which is not empty; 0 when it is not well-formed.
size_t DecodeUtf8(std::string_view bytes, uint32_t* point) {
  const auto lead = static_cast<unsigned char>(bytes.front());
  *point = lead;
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (length == 0 || lead > 0xf4 || length > bytes.size()) return 0;
  *point = lead & (0xffu >> (length + 1));
  for (size_t k = 1; k < length; ++k) {
    const auto next = static_cast<unsigned char>(bytes[k]);
    if ((next & 0xc0) != 0x80) return 0;
    *point = (*point << 6) | (next & 0x3fu);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = *point >= 0xd800 && *point <= 0xdfff;
  return *point < kSmallest[length] || *point > 0x10ffff || surrogate ? 0 : length;
}

// Control characters (C0, DEL, C1), line separators, and marks, embeddings and isolates of direction.
bool SteersTerminal(uint32_t point) {
  return point < 0x20 || (point >= 0x7f && point <= 0x9f) || point == 0x200e || point == 0x200f ||
         (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  constexpr std::pair<uint64_t, const char*> kUnits[] = {
      {1ull << 30, "GiB"}, {1ull << 20, "MiB"}, {1ull << 10, "KiB"}};
  for (const auto& [size, name] : kUnits) {
    if (bytes >= size)
      return fmt::format("{:.1f} {}", static_cast<double>(bytes) / static_cast<double>(size), name);
  }
  return fmt::format("{} B", bytes);
}

int64_t ParseBytes(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !(number >= 0)) return -1;
  std::string unit = Lowered({end, text.data() + text.size()});
  unit.erase(0, unit.find_first_not_of(' '));
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1},         {"b", 1},      {"k", 0x1p10},   {"kb", 1e3},    {"kib", 0x1p10},
      {"m", 0x1p20},   {"mb", 1e6},   {"mib", 0x1p20}, {"g", 0x1p30},  {"gb", 1e9},
      {"gib", 0x1p30}, {"t", 0x1p40}, {"tb", 1e12},    {"tib", 0x1p40}};
  for (const auto& [name, size] : kUnits) {
    if (unit == name) return number * size < 0x1p62 ? static_cast<int64_t>(std::llround(number * size)) : -1;
  }
  return -1;
}

std::string Lowered(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lowered;
}

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replace = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string_view Nearest(std::string_view word, std::span<const std::string_view> candidates) {
  const int limit = std::clamp(static_cast<int>(word.size() / 3), 1, 3);
  std::string_view best;
  int best_distance = limit + 1;
  for (std::string_view candidate : candidates) {
    // Every edit changes the length by one at most.
    const auto gap = static_cast<std::ptrdiff_t>(word.size()) - static_cast<std::ptrdiff_t>(candidate.size());
    if (std::abs(gap) >= best_distance) continue;
    const int distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

bool IsUtf8(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    uint32_t point = 0;
    const size_t length = DecodeUtf8(bytes.substr(i), &point);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string Printable(std::string_view text, Newlines newlines) {
  std::string printable;
  for (size_t i = 0; i < text.size();) {
    uint32_t point = 0;
    const size_t length = DecodeUtf8(text.substr(i), &point);
    if (length == 0) {
      printable += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    } else if (!SteersTerminal(point) || (point == '\n' && newlines == Newlines::kKeep)) {
      printable += text.substr(i, length);
    } else if (point == '\n' || point == '\r' || point == '\t') {
      printable += point == '\n' ? "\\n" : point == '\r' ? "\\r" : "\\t";
    } else {
      printable += point < 0x100 ? fmt::format("\\x{:02x}", point) : fmt::format("\\u{:04x}", point);
    }
    i += std::max<size_t>(1, length);
  }
  return printable;
}

}  // namespace rung
