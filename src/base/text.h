// Small text functions that messages need.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace rung {

// "4.1 GiB", "350.2 MiB", "12 B": binary units, one decimal.
std::string FormatBytes(uint64_t bytes);

// "12GiB", "350MB", "1.5g", "4096": bytes, or -1 when it is not a size. KB/MB/GB are decimal, KiB/MiB/GiB and
// a bare letter binary.
int64_t ParseBytes(std::string_view text);

// Edit distance with transpositions (optimal string alignment).
int EditDistance(std::string_view a, std::string_view b);

// The candidate nearest to `word` within a third of its length (at least 1, at most 3 edits); empty when
// there is none.
std::string_view Nearest(std::string_view word, std::span<const std::string_view> candidates);

// A to Z as a to z, all else as it is.
std::string Lowered(std::string_view text);

// True for well-formed UTF-8: no overlong forms, no surrogates, at most U+10FFFF.
bool IsUtf8(std::string_view bytes);

// A foreign file's text for a terminal: control characters, those that turn the direction of writing, and
// bytes that are no UTF-8 become "\n", "\x1b", "\u202e".
enum class Newlines : uint8_t { kEscape, kKeep };
std::string Printable(std::string_view text, Newlines newlines = Newlines::kEscape);

}  // namespace rung
